from django.conf import settings
from django.db import models

from .text import validate_storable


class Scope(models.TextChoices):
    """Limits what a token may do on behalf of its user. Each scope includes those before it."""

    READ = "read", "Read"
    WRITE = "write", "Write"
    ADMIN = "admin", "Admin"


class Token(models.Model):
    """A user's credential for scripts. The secret is shown once, on creation; only its digest is stored."""

    id: int
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="tokens")
    name = models.CharField(max_length=100, validators=[validate_storable])
    scope = models.CharField(max_length=5, choices=Scope)
    digest = models.CharField(max_length=64, unique=True)
    created_at = models.DateTimeField(auto_now_add=True)
    # Null: it never expires.
    expires_at = models.DateTimeField(null=True)
    # Updated once a minute at most.
    last_used_at = models.DateTimeField(null=True)

    user_id: int

    class Meta:
        constraints = [models.CheckConstraint(condition=models.Q(scope__in=Scope.values), name="token_scope_known")]

    def __str__(self) -> str:
        return f"{self.name} ({self.scope}) of {self.user}"
