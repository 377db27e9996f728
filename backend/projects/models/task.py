from django.conf import settings
from django.contrib.postgres.indexes import GinIndex
from django.db import models

from .text import searchable, validate_storable


class Status(models.TextChoices):
    PENDING = "pending", "Pending"
    IN_PROGRESS = "in_progress", "In Progress"
    COMPLETED = "completed", "Completed"


class Task(models.Model):
    id: int
    # Neither foreign key has an index by itself: one of those below starts with it.
    project = models.ForeignKey("Project", models.CASCADE, related_name="tasks", db_index=False)
    title = models.CharField(max_length=255, validators=[validate_storable])
    description = models.TextField(blank=True, default="", validators=[validate_storable])
    status = models.CharField(max_length=11, choices=Status, default=Status.PENDING)
    assignee = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.SET_NULL,
        null=True,
        blank=True,
        related_name="assigned_tasks",
        db_index=False,
    )
    due_date = models.DateTimeField()
    version = models.PositiveIntegerField(default=1, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)
    # What a search looks into. PostgreSQL keeps it.
    search_text = models.GeneratedField(
        expression=searchable("title", "description"), output_field=models.TextField(), db_persist=True
    )

    project_id: int
    assignee_id: int | None

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(condition=~models.Q(title=""), name="task_title_not_empty"),
            models.CheckConstraint(condition=models.Q(status__in=Status.values), name="task_status_known"),
            models.CheckConstraint(condition=models.Q(version__gte=1), name="task_version_from_1"),
        ]
        # Each is one order or one filter of the lists, ended by the id that makes every order total. Those by project
        # are for who sees some projects only (docs/decisions/0007-large-tables.md).
        indexes = [
            models.Index(fields=["due_date", "id"], name="task_due"),
            models.Index(fields=["created_at", "id"], name="task_created"),
            models.Index(fields=["updated_at", "id"], name="task_updated"),
            models.Index(fields=["project", "id"], name="task_of_project"),
            models.Index(fields=["assignee", "id"], name="task_of_assignee"),
            models.Index(fields=["status", "id"], name="task_in_status"),
            models.Index(fields=["project", "due_date", "id"], name="task_of_project_due"),
            models.Index(fields=["project", "created_at", "id"], name="task_of_project_created"),
            models.Index(fields=["project", "updated_at", "id"], name="task_of_project_updated"),
            GinIndex(fields=["search_text"], name="task_search", opclasses=["gin_trgm_ops"]),
        ]

    def __str__(self) -> str:
        return self.title
