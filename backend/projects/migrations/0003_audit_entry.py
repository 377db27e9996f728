from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("projects", "0002_user_name_once")]

    operations = [
        migrations.CreateModel(
            name='AuditEntry',
            fields=[
                ('id', models.AutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('at', models.DateTimeField(auto_now_add=True)),
                ('action', models.CharField(choices=[('signed_in', 'Signed in'), ('sign_in_failed', 'Sign-in failed'), ('signed_out', 'Signed out'), ('password_changed', 'Password changed'), ('account_created', 'Account created'), ('account_changed', 'Account changed'), ('account_deleted', 'Account deleted'), ('token_created', 'Token created'), ('token_revoked', 'Token revoked'), ('member_added', 'Member added'), ('role_changed', 'Role changed'), ('member_removed', 'Member removed')], max_length=16)),
                ('actor_id', models.IntegerField(null=True)),
                ('actor_name', models.CharField(blank=True, max_length=301)),
                ('actor_token_id', models.IntegerField(null=True)),
                ('address', models.CharField(blank=True, max_length=45)),
                ('user_id', models.IntegerField(null=True)),
                ('user_name', models.CharField(blank=True, max_length=301)),
                ('project_id', models.IntegerField(null=True)),
                ('detail', models.CharField(blank=True, max_length=255)),
            ],
            options={
                'verbose_name_plural': 'audit entries',
                'ordering': ['-id'],
            },
        ),
    ]
