from . import comment, membership, project, reminder, report, session, task, token, user

__all__ = ["comment", "membership", "project", "reminder", "report", "session", "task", "token", "user"]
