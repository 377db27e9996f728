from . import comment, membership, project, reminder, report, task, token, user

__all__ = ["comment", "membership", "project", "reminder", "report", "task", "token", "user"]
