from argparse import ArgumentParser
from datetime import date, timedelta
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from backend.projects import services
from backend.projects.errors import ProjectNotFound
from backend.projects.models import Project
from backend.projects.services.clock import Day, zone


class Command(BaseCommand):
    help = "Generate the summaries of a local date. Existing summaries are updated."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--date", type=date.fromisoformat, help="local date, such as 2027-03-01 (default: yesterday)"
        )
        parser.add_argument("--project", type=int, help="id of one project (default: all that existed on that date)")

    def handle(self, *, date: date | None, project: int | None, **options: Any) -> None:
        date = date or timezone.now().astimezone(zone()).date() - timedelta(days=1)
        existed = Project.objects.filter(created_at__lt=Day.of(date).end).order_by("pk")
        project_ids = list(existed.values_list("pk", flat=True)) if project is None else [project]
        for project_id in project_ids:
            try:
                report = services.report.generate(project_id, date)
            except ProjectNotFound as error:
                raise CommandError(str(error)) from None
            except ValidationError as error:
                raise CommandError(" ".join(error.messages)) from None
            self.stdout.write(f"Report {report.pk}: project {project_id} on {date}.")
        if not project_ids:
            self.stdout.write(f"No project existed on {date}.")
