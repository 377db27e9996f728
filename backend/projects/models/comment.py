from django.db import models

from .text import validate_storable


class Comment(models.Model):
    """A comment on a task. `author` is a name without a foreign key: a comment outlives the account of its author."""

    id = models.BigAutoField(primary_key=True)
    task = models.ForeignKey("Task", models.CASCADE, related_name="comments")
    author = models.CharField(max_length=255, validators=[validate_storable])
    content = models.TextField(validators=[validate_storable])
    created_at = models.DateTimeField(auto_now_add=True)

    task_id: int

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(condition=~models.Q(author=""), name="comment_author_not_empty"),
            models.CheckConstraint(condition=~models.Q(content=""), name="comment_content_not_empty"),
        ]
        indexes = [models.Index(fields=["task", "id"], name="comment_of_task")]

    def __str__(self) -> str:
        return f"{self.author}: {self.content[:40]}"
