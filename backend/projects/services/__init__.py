from . import comment, invitation, membership, project, reminder, report, retention, session, task, token, user

__all__ = [
    "comment",
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
