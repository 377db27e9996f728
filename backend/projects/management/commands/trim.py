from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand
from django.utils import timezone

from backend.projects import services


class Command(BaseCommand):
    help = "Delete old events, audit entries and digests, expired sessions and invitations. Beat does so every hour."

    def handle(self, **options: Any) -> None:
        now = timezone.now()
        events, entries = services.retention.trim_journal(now=now), services.retention.trim_audit(now=now)
        invitations = services.retention.trim_invitations(now=now)
        self.stdout.write(f"{events} events older than {settings.JOURNAL_DAYS} days are deleted.")
        sessions, attempts = services.retention.clear_sessions(now=now), services.retention.clear_attempts(now=now)
        self.stdout.write(f"{entries} entries of the audit log older than {settings.AUDIT_DAYS} days are deleted.")
        self.stdout.write(f"{sessions} expired sessions and {attempts} old failed sign-ins are deleted.")
        self.stdout.write(f"{invitations} expired invitations are deleted.")
        mails = services.retention.trim_mail(now=now)
        self.stdout.write(f"{mails} old digests and quotas of mail are deleted.")
