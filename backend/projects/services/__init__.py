from . import comment, membership, project, task, user

__all__ = ["comment", "membership", "project", "task", "user"]
