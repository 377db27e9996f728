from django.db import migrations, models


class Migration(migrations.Migration):
    # PostgreSQL rewrites each of these tables once, during which it cannot be read: about a second per million rows.
    dependencies = [("projects", "0007_comment_imported")]

    operations = [
        migrations.AlterField(
            model_name=model, name="id", field=models.BigAutoField(primary_key=True, serialize=False)
        )
        for model in ("auditentry", "comment", "reminder", "reportmail")
    ]
