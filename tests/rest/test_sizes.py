"""The maximum lengths of descriptions and comments, and older rows that exceed them."""

from __future__ import annotations

from typing import Any

from backend.projects.models import Comment
from tests.factories import CommentFactory, ProjectFactory, TaskFactory
from tests.rest.cases import OpenCase, project_json, task_json

DESCRIPTION, COMMENT = 64 * 1024, 16 * 1024


class LengthTests(OpenCase):
    def requests(self, description: str) -> list[tuple[str, str, dict[str, Any]]]:
        """The method, path and body of each request that writes a description."""
        task = TaskFactory()
        new_task = {"project": task.project_id, "title": "Weed", "due_date": "2027-03-01T09:30:00Z"}
        return [
            ("POST", "/projects/", {"name": "Garden", "description": description}),
            ("PUT", f"/projects/{task.project_id}/", {"name": "Garden", "description": description}),
            ("PATCH", f"/projects/{task.project_id}/", {"description": description}),
            ("POST", "/tasks/", {**new_task, "description": description}),
            ("PUT", f"/tasks/{task.pk}/", {**new_task, "description": description}),
            ("PATCH", f"/tasks/{task.pk}/", {"description": description}),
        ]

    def test_a_description_has_at_most_65536_characters(self) -> None:
        for method, path, body in self.requests("é" * DESCRIPTION):
            with self.subTest(method=method, path=path):
                response = self.send(method, path, body)
                self.assertIn(response.status_code, (200, 201), response.content[:200])
                self.assertEqual(len(response.json()["description"]), DESCRIPTION)
        for method, path, body in self.requests("é" * (DESCRIPTION + 1)):
            with self.subTest(method=method, path=path), self.nothing_changes():
                response = self.send(method, path, body)
                self.assert_refused(response, 400, "description")
                self.assertIn(str(DESCRIPTION), response.json()["description"][0])

    def test_a_comment_has_at_most_16384_characters(self) -> None:
        path = f"/tasks/{TaskFactory().pk}/comments/"
        body = {"content": "é" * COMMENT, "author": "Ada"}
        self.assertEqual(self.send("POST", path, body).status_code, 201)
        self.assertEqual(len(Comment.objects.get().content), COMMENT)
        with self.nothing_changes():
            response = self.send("POST", path, {**body, "content": "é" * (COMMENT + 1)})
            self.assert_refused(response, 400, "content")
        self.assertIn(str(COMMENT), response.json()["content"][0])

    def test_a_row_over_the_limit_is_shown_and_its_other_fields_can_change(self) -> None:
        text = "x" * (DESCRIPTION + 1)
        task = TaskFactory(description=text, project=ProjectFactory(description=text))
        CommentFactory(task=task, content="x" * (COMMENT + 1))
        for path, row, name in (
            (f"/projects/{task.project_id}/", project_json(task.project), "name"),
            (f"/tasks/{task.pk}/", task_json(task), "title"),
        ):
            self.assertEqual(self.client.get(path).json(), row)
            with self.subTest(path):
                self.assertEqual(self.send("PATCH", path, {name: "New"}).json()["description"], text)
                whole = {key: row[key] for key in ("description", "project", "due_date") if key in row}
                response = self.send("PUT", path, {**whole, name: "Newer"})
                self.assertEqual((response.status_code, response.json()[name]), (200, "Newer"), response.content[:200])
                self.assertEqual(response.json()["description"], text)
                self.assert_refused(self.send("PATCH", path, {"description": f"{text}."}), 400, "description")
                self.assertEqual(self.send("PATCH", path, {"description": "Short."}).status_code, 200)
        [comment] = self.client.get(f"/tasks/{task.pk}/comments/").json()
        self.assertEqual(len(comment["content"]), COMMENT + 1)
