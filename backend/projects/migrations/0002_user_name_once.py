from django.db import migrations, models
from django.db.models.functions import Upper

import backend.projects.models.user


class Migration(migrations.Migration):
    dependencies = [("projects", "0001_initial")]

    operations = [
        migrations.AlterModelManagers(
            name="user", managers=[("objects", backend.projects.models.user.CaseInsensitiveUserManager())]
        ),
        migrations.AddConstraint(
            model_name="user",
            constraint=models.UniqueConstraint(
                Upper("username"),
                name="user_name_once",
                violation_error_code="unique",
                violation_error_message="A user with that name already exists, in this case or another.",
            ),
        ),
    ]
