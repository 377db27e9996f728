from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("projects", "0010_mails_per_hour")]

    operations = [
        migrations.AddField(
            model_name='mailquota',
            name='project_id',
            field=models.IntegerField(db_default=0),
        ),
        migrations.AlterField(
            model_name='mailquota',
            name='recipient',
            field=models.EmailField(max_length=254),
        ),
        migrations.AddConstraint(
            model_name='mailquota',
            constraint=models.UniqueConstraint(fields=('recipient', 'project_id'), name='mail_quota_once'),
        ),
    ]
