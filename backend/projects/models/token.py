from django.conf import settings
from django.db import models

from .text import validate_storable


class Scope(models.TextChoices):
    """What a token may do of that which its user may; each has the ones before it in it."""

    READ = "read", "Read"
    WRITE = "write", "Write"
    ADMIN = "admin", "Admin"


class Token(models.Model):
    """A user's key for scripts. What it is itself is told once, when it is made; kept is a digest of it."""

    id: int
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="tokens")
    name = models.CharField(max_length=100, validators=[validate_storable])
    scope = models.CharField(max_length=5, choices=Scope)
    digest = models.CharField(max_length=64, unique=True)
    created_at = models.DateTimeField(auto_now_add=True)
    # Null: it does not expire.
    expires_at = models.DateTimeField(null=True)
    # Written once a minute at most.
    last_used_at = models.DateTimeField(null=True)

    user_id: int

    class Meta:
        constraints = [models.CheckConstraint(condition=models.Q(scope__in=Scope.values), name="token_scope_known")]

    def __str__(self) -> str:
        return f"{self.name} ({self.scope}) of {self.user}"
