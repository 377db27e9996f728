from . import audit, comment, event, invitation, membership, project, report, task, token, user

__all__ = ["audit", "comment", "event", "invitation", "membership", "project", "report", "task", "token", "user"]
