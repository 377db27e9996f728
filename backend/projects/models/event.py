from django.contrib.postgres.fields import ArrayField
from django.db import connection, models


class Event(models.Model):
    """One row of the journal. Written by `journal.append` alone, never changed afterwards.

    It refers to rows by number and not by foreign key: an event outlives what it tells of.
    """

    position = models.BigIntegerField(primary_key=True)
    kind = models.CharField(max_length=32)
    project_id = models.IntegerField(null=True)
    task_id = models.IntegerField(null=True)
    actor_id = models.IntegerField(null=True)
    actor_name = models.CharField(max_length=301, blank=True)
    at = models.DateTimeField()
    # A JSON object, kept as the text that goes out: frames are built from it without parsing it again.
    payload = models.TextField()
    # Ids of those who could see a project when it was deleted; staff besides. Null: whoever may see the project.
    audience = ArrayField(models.IntegerField(), null=True)

    class Meta:
        ordering = ["position"]
        indexes = [models.Index(fields=["project_id", "position"], name="event_of_project")]

    def __str__(self) -> str:
        return f"{self.position} {self.kind}"

    @classmethod
    def head(cls) -> int:
        """The newest position; 0 before the first change."""
        with connection.cursor() as cursor:  # before every list that is read: the ORM would take thrice the time
            cursor.execute(f"SELECT coalesce(max(position), 0) FROM {cls._meta.db_table}")
            newest: int = cursor.fetchone()[0]
        return newest
