from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    # The table stays usable during the build. An interrupted build leaves an invalid index: drop it and migrate again.
    atomic = False

    dependencies = [("projects", "0011_mails_per_project")]

    operations = [
        AddIndexConcurrently(
            model_name='event',
            index=models.Index(condition=models.Q(('kind', 'project.deleted')), fields=['position'], name='event_of_deletion'),
        ),
    ]
