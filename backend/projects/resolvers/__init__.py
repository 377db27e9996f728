from . import audit, comment, event, project, report, task, token, user

__all__ = ["audit", "comment", "event", "project", "report", "task", "token", "user"]
