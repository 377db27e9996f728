from django.db import models

from .outgoing_mail import LimitedMail


class Reminder(LimitedMail):
    """The ledger of reminders: one row per task, recipient and due date, hence one mail."""

    task = models.ForeignKey("Task", models.CASCADE, related_name="reminders")
    due_date = models.DateTimeField()

    task_id: int

    PROJECT = "task__project"

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["task", "recipient", "due_date"], name="reminder_once"),
        ]
        indexes = [
            models.Index(fields=["not_before", "id"], name="reminder_unsent", condition=models.Q(sent_at=None)),
        ]

    @property
    def project_id(self) -> int:
        return self.task.project_id

    def __str__(self) -> str:
        return f"{self.recipient}: task {self.task_id} due {self.due_date:%Y-%m-%d %H:%M}"
