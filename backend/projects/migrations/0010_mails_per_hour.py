import django.contrib.postgres.fields
import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("projects", "0009_invitation")]

    operations = [
        migrations.CreateModel(
            name='MailQuota',
            fields=[
                ('id', models.AutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('recipient', models.EmailField(max_length=254, unique=True)),
                ('claimed_at', django.contrib.postgres.fields.ArrayField(base_field=models.DateTimeField(), size=None)),
                ('digest_at', models.DateTimeField(null=True)),
                ('updated_at', models.DateTimeField()),
            ],
        ),
        migrations.AddField(
            model_name='reminder',
            name='is_in_doubt',
            field=models.BooleanField(db_default=False),
        ),
        migrations.AddField(
            model_name='reportmail',
            name='is_in_doubt',
            field=models.BooleanField(db_default=False),
        ),
        migrations.CreateModel(
            name='MailDigest',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('recipient', models.EmailField(max_length=254)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('not_before', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('attempts', models.PositiveSmallIntegerField(db_default=0)),
                ('is_in_doubt', models.BooleanField(db_default=False)),
                ('sent_at', models.DateTimeField(null=True)),
            ],
            options={
                'indexes': [models.Index(condition=models.Q(('sent_at', None)), fields=['not_before', 'id'], name='mail_digest_unsent')],
            },
        ),
        migrations.AddField(
            model_name='reminder',
            name='digest',
            field=models.ForeignKey(db_constraint=False, null=True, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to='projects.maildigest'),
        ),
        migrations.AddField(
            model_name='reportmail',
            name='digest',
            field=models.ForeignKey(db_constraint=False, null=True, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to='projects.maildigest'),
        ),
    ]
