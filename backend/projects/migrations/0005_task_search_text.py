import django.db.models.deletion
import django.db.models.functions.text
from django.conf import settings
from django.contrib.postgres.operations import TrigramExtension
from django.db import migrations, models


class Migration(migrations.Migration):
    # The new column rewrites the table: 13 s for 1,000,000 tasks, during which it cannot be read.
    dependencies = [("projects", "0004_token")]

    operations = [
        TrigramExtension(),
        migrations.AddField(
            model_name='task',
            name='search_text',
            field=models.GeneratedField(
                db_persist=True,
                expression=models.Func(
                    django.db.models.functions.text.Concat(
                        django.db.models.functions.text.Upper(models.F('title')),
                        models.Value('n'),
                        django.db.models.functions.text.Upper(models.F('description')),
                        output_field=models.TextField(),
                    ),
                    models.Value(' \n\t.,:;-_/%\\()[]\'"!?+*#&'),
                    models.Value('qjzxkvwybpgfhmcduoltrasi'),
                    function='translate',
                    output_field=models.TextField(),
                ),
                output_field=models.TextField(),
            ),
        ),
        migrations.AlterField(
            model_name='task',
            name='assignee',
            field=models.ForeignKey(
                blank=True,
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name='assigned_tasks',
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AlterField(
            model_name='task',
            name='project',
            field=models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.CASCADE,
                related_name='tasks',
                to='projects.project',
            ),
        ),
    ]
