from django.conf import settings
from django.db import models

from .membership import Role


class Invitation(models.Model):
    """An offer of a role in a project. A user who accepts it becomes a member, and has no access to the project before.

    `invited_by` has no constraint in the database and is not updated: an invitation outlives the account of its sender.
    """

    id: int
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="invitations")
    project = models.ForeignKey("Project", models.CASCADE, related_name="invitations")
    role = models.CharField(max_length=6, choices=Role)
    invited_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.DO_NOTHING, null=True, related_name="+", db_constraint=False
    )
    created_at = models.DateTimeField()
    # The invitation can be accepted before this time.
    expires_at = models.DateTimeField()

    user_id: int
    project_id: int
    invited_by_id: int | None

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["user", "project"], name="invitation_once"),
            models.CheckConstraint(condition=models.Q(role__in=Role.values), name="invitation_role_known"),
        ]

    def __str__(self) -> str:
        return f"{self.user} is invited to {self.project} as {self.role}"
