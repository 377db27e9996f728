from django.db import models


class AuditAction(models.TextChoices):
    SIGNED_IN = "signed_in", "Signed in"
    SIGN_IN_FAILED = "sign_in_failed", "Sign-in failed"
    SIGNED_OUT = "signed_out", "Signed out"
    PASSWORD_CHANGED = "password_changed", "Password changed"
    ACCOUNT_CREATED = "account_created", "Account created"
    ACCOUNT_CHANGED = "account_changed", "Account changed"
    ACCOUNT_DELETED = "account_deleted", "Account deleted"
    TOKEN_CREATED = "token_created", "Token created"
    TOKEN_REVOKED = "token_revoked", "Token revoked"
    MEMBER_ADDED = "member_added", "Member added"
    ROLE_CHANGED = "role_changed", "Role changed"
    MEMBER_REMOVED = "member_removed", "Member removed"


class AuditEntry(models.Model):
    """Who got in, and who let whom do what. For staff alone: it is no part of what a project's listeners hear.

    Written by `audit.record` alone. As the journal, it refers to rows by number, and outlives them.
    """

    id: int
    at = models.DateTimeField(auto_now_add=True)
    action = models.CharField(max_length=16, choices=AuditAction)
    # Who did it; null for nobody who is signed in, and for commands.
    actor_id = models.IntegerField(null=True)
    actor_name = models.CharField(max_length=301, blank=True)
    # The token by which they were signed in, if it was one.
    actor_token_id = models.IntegerField(null=True)
    # The client's IP address; empty for commands.
    address = models.CharField(max_length=45, blank=True)
    # Whose account, membership or token it is about.
    user_id = models.IntegerField(null=True)
    user_name = models.CharField(max_length=301, blank=True)
    project_id = models.IntegerField(null=True)
    # What else there is to know, in words: a role, a token's name and scope.
    detail = models.CharField(max_length=255, blank=True)

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "audit entries"

    def __str__(self) -> str:
        return f"{self.get_action_display()}: {self.user_name or self.actor_name}"
