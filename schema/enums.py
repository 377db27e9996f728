import enum
from typing import TypeAlias

import strawberry

from backend.projects.events import EventKind as DomainEventKind
from backend.projects.models import AuditAction as DomainAuditAction
from backend.projects.models import Role as DomainRole
from backend.projects.models import Scope, Status

strawberry.enum(Status, name="TaskStatus")
TaskStatus: TypeAlias = Status

strawberry.enum(
    DomainRole,
    name="Role",
    description="A member's permissions: an owner manages and deletes, an editor writes, a viewer reads.",
)
Role: TypeAlias = DomainRole

strawberry.enum(
    Scope,
    name="TokenScope",
    description="Limits a token to a part of its user's permissions. Each scope includes the ones before it.",
)
TokenScope: TypeAlias = Scope

strawberry.enum(DomainAuditAction, name="AuditAction")
AuditAction: TypeAlias = DomainAuditAction

strawberry.enum(DomainEventKind, name="EventKind")
EventKind: TypeAlias = DomainEventKind


@strawberry.enum
class Direction(enum.Enum):
    ASC = "asc"
    DESC = "desc"


@strawberry.enum
class TaskOrderField(enum.Enum):
    ID = "id"
    DUE_DATE = "due_date"
    CREATED_AT = "created_at"
    UPDATED_AT = "updated_at"


@strawberry.enum
class ProjectOrderField(enum.Enum):
    ID = "id"
    CREATED_AT = "created_at"
    UPDATED_AT = "updated_at"
