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
    COMMENT_IMPORTED = "comment_imported", "Comment imported"
    MEMBER_INVITED = "member_invited", "Member invited"
    INVITATION_ACCEPTED = "invitation_accepted", "Invitation accepted"
    INVITATION_DECLINED = "invitation_declined", "Invitation declined"
    INVITATION_CANCELLED = "invitation_cancelled", "Invitation cancelled"


class AuditEntry(models.Model):
    """A sign-in, a change of an account, token, membership or invitation, or a comment imported under another name.

    Only staff may read it. Only `audit.record` writes it. Like an event of the journal, it refers to rows by id without
    a foreign key, and outlives them.
    """

    id = models.BigAutoField(primary_key=True)
    at = models.DateTimeField(auto_now_add=True)
    action = models.CharField(max_length=32, choices=AuditAction)
    # The acting user; null for anonymous clients and for commands.
    actor_id = models.IntegerField(null=True)
    actor_name = models.CharField(max_length=301, blank=True)
    # The token that the actor used, if any.
    actor_token_id = models.IntegerField(null=True)
    # The client's IP address; empty for commands.
    address = models.CharField(max_length=45, blank=True)
    # The owner of the account, membership, invitation or token that the entry is about.
    user_id = models.IntegerField(null=True)
    user_name = models.CharField(max_length=301, blank=True)
    project_id = models.IntegerField(null=True)
    # Further details as text: a role, a token's name and scope.
    detail = models.CharField(max_length=255, blank=True)

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "audit entries"

    def __str__(self) -> str:
        return f"{self.get_action_display()}: {self.user_name or self.actor_name}"
