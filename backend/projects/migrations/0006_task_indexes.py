from django.contrib.postgres.indexes import GinIndex
from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    # The table stays usable during a build. An interrupted build leaves an invalid index: drop it and migrate again.
    atomic = False

    dependencies = [("projects", "0005_task_search_text")]

    operations = [
        AddIndexConcurrently(
            model_name='task',
            index=models.Index(fields=['project', 'due_date', 'id'], name='task_of_project_due'),
        ),
        AddIndexConcurrently(
            model_name='task',
            index=models.Index(fields=['project', 'created_at', 'id'], name='task_of_project_created'),
        ),
        AddIndexConcurrently(
            model_name='task',
            index=models.Index(fields=['project', 'updated_at', 'id'], name='task_of_project_updated'),
        ),
        AddIndexConcurrently(
            model_name='task',
            index=GinIndex(fields=['search_text'], name='task_search', opclasses=['gin_trgm_ops']),
        ),
    ]
