from __future__ import annotations

from typing import TYPE_CHECKING

from django.conf import settings
from django.db import models

from .text import validate_storable

if TYPE_CHECKING:
    from .membership import Membership
    from .user import User


class Project(models.Model):
    id: int
    name = models.CharField(max_length=255, validators=[validate_storable])
    description = models.TextField(blank=True, default="", validators=[validate_storable])
    version = models.PositiveIntegerField(default=1, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)
    members: models.ManyToManyField[User, Membership] = models.ManyToManyField(
        settings.AUTH_USER_MODEL, through="Membership", related_name="projects", editable=False
    )

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(condition=~models.Q(name=""), name="project_name_not_empty"),
            models.CheckConstraint(condition=models.Q(version__gte=1), name="project_version_from_1"),
        ]

    def __str__(self) -> str:
        return self.name
