from . import comment, event, project, report, task, user

__all__ = ["comment", "event", "project", "report", "task", "user"]
