import enum
from typing import TypeAlias

import strawberry

from backend.projects.events import EventKind as DomainEventKind
from backend.projects.models import Status

strawberry.enum(Status, name="TaskStatus")
TaskStatus: TypeAlias = Status

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
