"""`/events/` as JSON."""

from __future__ import annotations

from typing import Any

from backend.projects import services
from backend.projects.access import SYSTEM, viewer_for
from backend.projects.events import EventKind
from backend.projects.models import Event
from tests.factories import MembershipFactory, ProjectFactory, TaskFactory, UserFactory
from tests.rest.cases import ClosedCase, OpenCase, comment_json, project_json, task_json


class EventsTest(OpenCase):
    @classmethod
    def setUpTestData(cls) -> None:
        cls.ada = UserFactory(first_name="Ada")
        cls.project = MembershipFactory(user=cls.ada, role="owner").project
        cls.task = TaskFactory(project=cls.project)

    def read(self, **query: Any) -> dict[str, Any]:
        response = self.client.get("/events/", query)
        self.assertEqual((response.status_code, response["Content-Type"]), (200, "application/json"), response.content)
        self.assertEqual(response["X-Cursor"], response.json()["cursor"])
        page: dict[str, Any] = response.json()
        return page

    def test_without_after_there_are_no_events_and_the_current_position_is_returned(self) -> None:
        self.assertEqual(self.read(), {"events": [], "cursor": "0", "more": False})
        self.send("PATCH", f"/projects/{self.project.pk}/", {"name": "Kitchen"})
        self.assertEqual(self.read(), {"events": [], "cursor": "1", "more": False})

    def test_an_event_shows_the_actor_the_kind_and_the_object(self) -> None:
        self.client.force_login(self.ada)
        response = self.send("PATCH", f"/tasks/{self.task.pk}/", {"status": "completed"}).json()
        page = self.read(after=0)
        self.assertEqual(
            page,
            {
                "events": [
                    {
                        "type": "task.updated",
                        "cursor": "1",
                        "at": page["events"][0]["at"],
                        "actor": {"id": self.ada.pk, "name": "Ada"},
                        "project": self.project.pk,
                        "task": response,
                        "changes": ["status"],
                    }
                ],
                "cursor": "1",
                "more": False,
            },
        )
        self.assertRegex(page["events"][0]["at"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$")

    def test_an_event_of_an_anonymous_user_has_no_actor(self) -> None:
        self.send("PATCH", f"/tasks/{self.task.pk}/", {"status": "completed"})
        self.assertIsNone(self.read(after=0)["events"][0]["actor"])

    def test_the_key_of_the_object_depends_on_its_kind(self) -> None:
        comment = services.comment.add_comment(actor=SYSTEM, task_id=self.task.pk, content="Hm.", author="Ada")
        services.project.update_project(actor=SYSTEM, project_id=self.project.pk, changes={"name": "Kitchen"})
        self.project.refresh_from_db()
        commented, updated = self.read(after=0)["events"]
        self.assertEqual(commented["comment"], comment_json(comment))
        self.assertEqual((updated["object"], updated["changes"]), (project_json(self.project), ["name"]))

    def test_all_pages_together_contain_every_event_once_from_the_oldest_on(self) -> None:
        for title in "abcde":
            self.send("PATCH", f"/tasks/{self.task.pk}/", {"title": title})
        seen, after, more = [], "0", True
        while more:
            page = self.read(after=after, page_size=2)
            seen.append("".join(event["task"]["title"] for event in page["events"]))
            after, more = page["cursor"], page["more"]
        self.assertEqual((seen, after), (["ab", "cd", "e"], "5"))

    def test_events_are_filtered_by_project_and_kinds(self) -> None:
        other = TaskFactory()
        self.send("PATCH", f"/tasks/{other.pk}/", {"title": "Other"})
        self.send("PATCH", f"/tasks/{self.task.pk}/", {"title": "Mine"})
        self.client.delete(f"/tasks/{self.task.pk}/")
        for query, cursors in [
            ({"project": self.project.pk}, ["2", "3"]),
            ({"project": 0}, []),
            ({"project": 2**63}, []),
            ({"kinds": "task.updated"}, ["1", "2"]),
            ({"kinds": "task.deleted,task.created"}, ["3"]),
            ({"kinds": "task.deleted", "project": other.project_id}, []),
        ]:
            with self.subTest(query):
                page = self.read(after=0, **query)
                self.assertEqual([event["cursor"] for event in page["events"]], cursors)
                self.assertEqual((page["cursor"], page["more"]), ("3", False))

    def test_the_refusal_of_a_bad_parameter_names_it(self) -> None:
        for name, value in [
            ("after", "x"),
            ("after", "-1"),
            ("after", ""),
            ("after", "1.0"),
            ("after", "٣"),
            ("after", 2**63),
            ("project", "nine"),
            ("kinds", "task.eaten"),
            ("kinds", "task.created,"),
            ("kinds", "TASK_CREATED"),
            ("page_size", 0),
            ("page_size", 101),
            ("first", 5),
            ("colour", "red"),
        ]:
            with self.subTest(name=name, value=value):
                self.assert_refused(self.client.get("/events/", {name: value}), 400, name)

    def test_a_position_that_cannot_be_resumed_is_a_410(self) -> None:
        for title in "abc":
            self.send("PATCH", f"/tasks/{self.task.pk}/", {"title": title})
        Event.objects.filter(position=1).delete()
        for after, code in [("0", "CURSOR_EXPIRED"), ("4", "RESYNC"), (str(2**63 - 1), "RESYNC")]:
            with self.subTest(after):
                response = self.client.get("/events/", {"after": after})
                self.assert_refused(response, 410)
                self.assertEqual(response.json(), {"detail": response.json()["detail"], "code": code, "oldest": "1"})
        self.assertEqual([event["cursor"] for event in self.read(after=1)["events"]], ["2", "3"])

    def test_the_default_media_type_is_json(self) -> None:
        for accept in ("*/*", "application/json", "text/html,*/*;q=0.8", "text/event-stream;q=0.1,application/json"):
            with self.subTest(accept):
                response = self.client.get("/events/", headers={"Accept": accept})
                self.assertEqual((response.status_code, response["Content-Type"]), (200, "application/json"))

    def test_ten_events_cost_as_many_queries_as_one(self) -> None:
        for title in "abcdefghij":
            self.send("PATCH", f"/tasks/{self.task.pk}/", {"title": title})
        for size in (1, 10):
            with self.assertNumQueries(3):
                self.client.get("/events/", {"after": 0, "page_size": size})


class EventAccessTest(ClosedCase):
    @classmethod
    def setUpTestData(cls) -> None:
        cls.owner = MembershipFactory(role="owner")
        cls.task = TaskFactory(project=cls.owner.project)
        cls.stranger = UserFactory()

    def kinds(self, user: Any, **query: Any) -> list[str]:
        self.client.force_login(user)
        return [event["type"] for event in self.client.get("/events/", {"after": 0, **query}).json()["events"]]

    def test_an_anonymous_request_is_a_401(self) -> None:
        for query in ("", "?after=0", "?colour=red"):
            self.assert_refused(self.client.get(f"/events/{query}"), 401)

    def test_events_are_visible_to_members_only(self) -> None:
        services.task.update_task(actor=SYSTEM, task_id=self.task.pk, changes={"title": "Dig"})
        self.assertEqual(self.kinds(self.owner.user), ["task.updated"])
        self.assertEqual(self.kinds(self.stranger), [])
        self.assertEqual(self.kinds(self.stranger, project=self.owner.project_id), [])

    def test_the_deletion_of_a_project_is_visible_to_its_members(self) -> None:
        project_id = self.owner.project_id
        services.project.delete_project(actor=viewer_for(self.owner.user), project_id=project_id)
        self.assertEqual(self.kinds(self.owner.user), [EventKind.PROJECT_DELETED])
        self.assertEqual(self.kinds(self.owner.user, project=project_id), [EventKind.PROJECT_DELETED])
        self.assertEqual(self.kinds(self.stranger), [])

    def test_a_change_of_membership_is_not_delivered(self) -> None:
        project = ProjectFactory()
        services.membership.add_member(
            actor=SYSTEM, project_id=project.pk, username=self.owner.user.username, role="viewer"
        )
        self.assertEqual(self.kinds(self.owner.user), [])
        self.assertEqual(self.client.get("/events/").json()["cursor"], "1")

    def test_the_task_of_an_event_is_the_task_as_rest_returns_it(self) -> None:
        task = services.task.update_task(actor=SYSTEM, task_id=self.task.pk, changes={"title": "Dig"})
        self.client.force_login(self.owner.user)
        event = self.client.get("/events/?after=0").json()["events"][0]
        self.assertEqual(event["task"], task_json(task))
        self.assertEqual(event["task"], self.client.get(f"/tasks/{task.pk}/").json())
