from django.db import models

from .outgoing_mail import LimitedMail


class SummaryReport(models.Model):
    """What happened in a project on one local date. `figures` is described at `services.report.figures`."""

    id: int
    project = models.ForeignKey("Project", models.CASCADE, related_name="reports")
    date = models.DateField()
    figures = models.JSONField()
    generated_at = models.DateTimeField()

    project_id: int

    class Meta:
        ordering = ["-id"]
        constraints = [models.UniqueConstraint(fields=["project", "date"], name="report_once")]
        indexes = [models.Index(fields=["project", "id"], name="report_of_project")]

    def __str__(self) -> str:
        return f"{self.project} on {self.date}"


class ReportMail(LimitedMail):
    """The ledger of mailed summaries: one row per report and recipient, hence one mail."""

    report = models.ForeignKey(SummaryReport, models.CASCADE, related_name="mails")

    report_id: int

    PROJECT = "report__project"

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["report", "recipient"], name="report_mail_once"),
        ]
        indexes = [
            models.Index(fields=["not_before", "id"], name="report_mail_unsent", condition=models.Q(sent_at=None)),
        ]

    @property
    def project_id(self) -> int:
        return self.report.project_id

    def __str__(self) -> str:
        return f"{self.recipient}: report {self.report_id}"
