from . import comment, digest, invitation, membership, project, reminder, report, retention, session, task, token, user

__all__ = [
    "comment",
    "digest",
    "invitation",
    "membership",
    "project",
    "reminder",
    "report",
    "retention",
    "session",
    "task",
    "token",
    "user",
]
