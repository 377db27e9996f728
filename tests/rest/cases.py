"""Base classes and helpers of the REST tests."""

from __future__ import annotations

import re
from typing import Any

from django.test.utils import override_settings

from backend.projects.rows import CommentRow, ProjectRow, ReportRow, TaskRow
from tests.cases import Case

ABSENT_IDS = ["999999", "0", "-1", "2147483648", "9223372036854775808", "nine", "1.0", "%00", "%20"]


class RestCase(Case):
    def send(self, method: str, path: str, data: Any = None, **headers: str) -> Any:
        """Send a request with a JSON body. Headers are keyword arguments: `If_Match`."""
        return self.client.generic(
            method,
            path,
            data if isinstance(data, bytes) else self.client._encode_json(data or {}, "application/json"),
            content_type="application/json",
            headers={name.replace("_", "-"): value for name, value in headers.items()},
        )

    def assert_refused(self, response: Any, status: int, *fields: str) -> None:
        """Check the status, and that the body has messages for exactly these fields."""
        self.assertEqual(
            (response.status_code, response["Content-Type"]), (status, "application/json"), response.content
        )
        if fields:
            self.assertEqual(sorted(response.json()), sorted(fields))
            for messages in response.json().values():
                self.assertTrue(messages[0])

    def next_page(self, response: Any) -> str | None:
        if "Link" not in response:
            return None
        match = re.fullmatch(r'<http://testserver(/[^>]*)>; rel="next"', response["Link"])
        assert match is not None, response["Link"]
        return match[1]

    def ids_of_all_pages(self, path: str | None) -> list[list[int]]:
        pages = []
        while path is not None:
            response = self.client.get(path)
            self.assertEqual(response.status_code, 200, response.content)
            pages.append([row["id"] for row in response.json()])
            path = self.next_page(response)
        return pages


@override_settings(ACCESS="open")
class OpenCase(RestCase):
    """An anonymous client may do everything."""


@override_settings(ACCESS="closed")
class ClosedCase(RestCase):
    """An anonymous client has no access."""


def project_json(project: Any) -> dict[str, Any]:
    return ProjectRow.of(project).as_json()


def task_json(task: Any) -> dict[str, Any]:
    return TaskRow.of(task).as_json()


def comment_json(comment: Any) -> dict[str, Any]:
    return CommentRow.of(comment).as_json()


def report_json(report: Any) -> dict[str, Any]:
    return ReportRow.of(report).as_json()
