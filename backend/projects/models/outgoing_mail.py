from typing import ClassVar

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Now


class OutgoingMail(models.Model):
    """One mail to one recipient, with the state of its delivery. `services.mail` updates it, by the database's clock.

    `not_before` is the earliest time of the next claim: the present claim expires then, or the wait after a refusal
    ends. `sent_at` is when the mail server accepted the mail. A mail is in doubt from its claim until its result is
    known: if the worker is killed meanwhile, the server may have accepted the mail.
    """

    id = models.BigAutoField(primary_key=True)
    recipient = models.EmailField(max_length=254)
    created_at = models.DateTimeField(db_default=Now())
    not_before = models.DateTimeField(db_default=Now())
    attempts = models.PositiveSmallIntegerField(db_default=0)
    is_in_doubt = models.BooleanField(db_default=False)
    sent_at = models.DateTimeField(null=True)

    class Meta:
        abstract = True


class MailDigest(OutgoingMail):
    """One mail in place of those that exceed the hourly limit of their recipient. Once claimed, it is complete."""

    class Meta:
        indexes = [
            models.Index(fields=["not_before", "id"], name="mail_digest_unsent", condition=models.Q(sent_at=None)),
        ]

    def __str__(self) -> str:
        return f"{self.recipient}: digest {self.pk}"


class LimitedMail(OutgoingMail):
    """A mail that counts towards the hourly limit of its recipient. Over the limit it is sent as part of `digest`.

    `digest` has no constraint in the database: a mail that was sent keeps the id of a digest that is deleted.
    """

    digest = models.ForeignKey(MailDigest, models.DO_NOTHING, null=True, related_name="+", db_constraint=False)

    digest_id: int | None

    # The path of lookups to the project.
    PROJECT: ClassVar[str]

    class Meta:
        abstract = True

    @property
    def project_id(self) -> int:
        raise NotImplementedError


class MailQuota(models.Model):
    """The times in the last hour at which mails to an address were claimed, except digests. `services.mail` updates it.

    An address has one row for each project, and one for all (ALL_PROJECTS). Unlike the rows of the mails, they are not
    deleted with their tasks. `recipient` is in lower case.
    """

    ALL_PROJECTS = 0

    id: int
    recipient = models.EmailField(max_length=254)
    project_id = models.IntegerField(db_default=ALL_PROJECTS)
    claimed_at = ArrayField(models.DateTimeField())
    # When the latest digest was claimed.
    digest_at = models.DateTimeField(null=True)
    updated_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["recipient", "project_id"], name="mail_quota_once")]

    def __str__(self) -> str:
        return f"{self.recipient}: project {self.project_id}"
