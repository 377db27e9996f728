from . import audit, comment, event, membership, project, report, task, token, user

__all__ = ["audit", "comment", "event", "membership", "project", "report", "task", "token", "user"]
