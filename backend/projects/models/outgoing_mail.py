from django.db import models
from django.db.models.functions import Now


class OutgoingMail(models.Model):
    """One mail to one recipient, with the state of its delivery. `services.mail` updates it, by the database's clock.

    No worker claims it before `not_before`: when the present claim expires, or the wait after a refusal ends.
    `sent_at` is when the mail server accepted it.
    """

    id = models.BigAutoField(primary_key=True)
    recipient = models.EmailField(max_length=254)
    created_at = models.DateTimeField(db_default=Now())
    not_before = models.DateTimeField(db_default=Now())
    attempts = models.PositiveSmallIntegerField(db_default=0)
    sent_at = models.DateTimeField(null=True)

    class Meta:
        abstract = True
