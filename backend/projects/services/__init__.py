from . import comment, membership, project, reminder, report, task, user

__all__ = ["comment", "membership", "project", "reminder", "report", "task", "user"]
