from . import comment, membership, project, reminder, report, retention, session, task, token, user

__all__ = ["comment", "membership", "project", "reminder", "report", "retention", "session", "task", "token", "user"]
