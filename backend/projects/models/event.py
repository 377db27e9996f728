from django.contrib.postgres.fields import ArrayField
from django.db import connection, models


class Event(models.Model):
    """One row of the journal. Only `journal.append` writes it, and nothing changes it afterwards.

    It refers to rows by id without a foreign key: an event outlives the rows that it describes.
    """

    position = models.BigIntegerField(primary_key=True)
    kind = models.CharField(max_length=32)
    project_id = models.IntegerField(null=True)
    task_id = models.IntegerField(null=True)
    actor_id = models.IntegerField(null=True)
    actor_name = models.CharField(max_length=301, blank=True)
    at = models.DateTimeField()
    # A JSON object, stored as text: frames are built from it without parsing it again.
    payload = models.TextField()
    # Where a project is deleted, the user ids of its members. They and staff receive the event. Null for other events.
    audience = ArrayField(models.IntegerField(), null=True)

    class Meta:
        ordering = ["position"]
        indexes = [
            models.Index(fields=["project_id", "position"], name="event_of_project"),
            # A page of events needs the projects that were deleted after its position.
            models.Index(fields=["position"], condition=models.Q(kind="project.deleted"), name="event_of_deletion"),
        ]

    def __str__(self) -> str:
        return f"{self.position} {self.kind}"

    @classmethod
    def head(cls) -> int:
        """The newest position; 0 before the first change."""
        with connection.cursor() as cursor:  # runs before every list; the ORM takes three times as long
            cursor.execute(f"SELECT coalesce(max(position), 0) FROM {cls._meta.db_table}")
            newest: int = cursor.fetchone()[0]
        return newest
