from django.db import models
from django.db.models.functions import Now


class OutgoingMail(models.Model):
    """One mail to one recipient, and how far it got. `services.mail` moves it on, by the database's clock.

    No worker takes it up before `not_before`: that is how long the one at work has, or the wait after a refusal.
    `sent_at` is when the mail server took it.
    """

    id: int
    recipient = models.EmailField(max_length=254)
    created_at = models.DateTimeField(db_default=Now())
    not_before = models.DateTimeField(db_default=Now())
    attempts = models.PositiveSmallIntegerField(db_default=0)
    sent_at = models.DateTimeField(null=True)

    class Meta:
        abstract = True
