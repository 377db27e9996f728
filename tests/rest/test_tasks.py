"""`/tasks/` and `/tasks/<id>/`."""

import base64
import json
import re
from datetime import UTC, datetime
from typing import Any

from backend.projects import services
from backend.projects.access import SYSTEM
from backend.projects.models import Event, Task
from tests.factories import MembershipFactory, ProjectFactory, TaskFactory, UserFactory
from tests.rest.cases import ABSENT_IDS, ClosedCase, OpenCase, task_json

NO_ROW = ["0", "-1", "999999", "2147483648", "9223372036854775808", "9" * 500]
BAD_TIMES = [
    "tomorrow",
    "2027-02-30",
    "2027-13-01T00:00:00Z",
    "2027-03-01T25:00:00Z",
    "2027-03-01T09:30:00+25:00",
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-12:00",
    "10000-01-01",
    "2027-03-01x09:30:00",
    "2027-03-01\x0009:30:00",
    "1772357400",
]


class ListTasksTest(OpenCase):
    @classmethod
    def setUpTestData(cls) -> None:
        cls.ada = UserFactory()
        cls.garden, cls.kitchen = ProjectFactory(), ProjectFactory()
        cls.weed = TaskFactory(
            project=cls.garden, title="Weed the beds", due_date=datetime(2027, 3, 3, tzinfo=UTC), assignee=cls.ada
        )
        cls.water = TaskFactory(
            project=cls.garden,
            title="Water",
            description="All the tomatoes",
            status="in_progress",
            due_date=datetime(2027, 3, 1, tzinfo=UTC),
        )
        cls.bake = TaskFactory(
            project=cls.kitchen, title="Bake", status="completed", due_date=datetime(2027, 3, 2, tzinfo=UTC)
        )

    def titles(self, **query: Any) -> list[str]:
        response = self.client.get("/tasks/", query)
        self.assertEqual(response.status_code, 200, response.content)
        return [task["title"].split()[0] for task in response.json()]

    def test_tasks_come_newest_first_as_a_plain_array(self) -> None:
        response = self.client.get("/tasks/")
        self.assertEqual(response.json(), [task_json(task) for task in (self.bake, self.water, self.weed)])

    def test_an_object_has_exactly_the_fields_of_the_contract(self) -> None:
        self.assertEqual(
            self.client.get(f"/tasks/?project={self.kitchen.pk}").json(),
            [
                {
                    "id": self.bake.pk,
                    "project": self.kitchen.pk,
                    "title": "Bake",
                    "description": "",
                    "status": "completed",
                    "assignee": None,
                    "due_date": "2027-03-02T00:00:00.000000Z",
                    "created_at": task_json(self.bake)["created_at"],
                    "updated_at": task_json(self.bake)["updated_at"],
                    "version": 1,
                }
            ],
        )

    def test_each_filter_selects_the_matching_tasks(self) -> None:
        for query, titles in [
            ({"project": self.garden.pk}, ["Water", "Weed"]),
            ({"status": "pending"}, ["Weed"]),
            ({"assignee": self.ada.pk}, ["Weed"]),
            ({"due_after": "2027-03-02T00:00:00Z"}, ["Bake", "Weed"]),
            ({"due_before": "2027-03-02T00:00:00Z"}, ["Water"]),
            ({"due_after": "2027-03-02", "due_before": "2027-03-03"}, ["Bake"]),
            ({"due_before": "2027-03-02T01:30:00+02:00"}, ["Water"]),
            ({"search": "TOMATO"}, ["Water"]),
            ({"search": "wee"}, ["Weed"]),
            ({"search": "100%"}, []),
            ({"project": self.garden.pk, "status": "completed"}, []),
        ]:
            with self.subTest(query):
                self.assertEqual(self.titles(**query), titles)

    def test_every_field_orders_ascending_and_descending(self) -> None:
        for field, titles in [
            ("id", ["Weed", "Water", "Bake"]),
            ("due_date", ["Water", "Bake", "Weed"]),
            ("created_at", ["Weed", "Water", "Bake"]),
            ("updated_at", ["Weed", "Water", "Bake"]),
        ]:
            with self.subTest(field):
                self.assertEqual(self.titles(ordering=field), titles)
                self.assertEqual(self.titles(ordering=f"-{field}"), titles[::-1])

    def test_all_pages_together_contain_every_task_once_in_any_order(self) -> None:
        same_day = [TaskFactory(due_date=datetime(2027, 3, 2, tzinfo=UTC)).pk for _ in range(3)]
        expected = [self.water.pk, self.bake.pk, *same_day, self.weed.pk]
        for ordering, ids in [("due_date", expected), ("-due_date", expected[::-1])]:
            with self.subTest(ordering):
                pages = self.ids_of_all_pages(f"/tasks/?page_size=2&ordering={ordering}")
                self.assertEqual(pages, [ids[:2], ids[2:4], ids[4:]])

    def test_a_row_created_between_two_pages_does_not_shift_the_second(self) -> None:
        first = self.client.get("/tasks/?page_size=2")
        TaskFactory()
        self.assertEqual([row["id"] for row in self.client.get(self.next_page(first)).json()], [self.weed.pk])

    def test_a_forged_cursor_is_never_an_internal_error(self) -> None:
        path = "/tasks/?page_size=1&ordering=due_date"
        [cursor] = re.findall("cursor=([^&>]+)", self.client.get(path)["Link"])
        digest, time, number = json.loads(base64.urlsafe_b64decode(cursor + "=="))
        for forged, status in [
            ([digest, "0001-01-01T00:00:00+23:59", number], 400),
            ([digest, "9999-12-31T23:59:59-23:59", number], 400),
            ([digest, 5, number], 400),
            ([digest, time, "1"], 400),
            ([digest, time, True], 400),
            ([digest, time], 400),
            ([digest, None, number], 400),
            ([digest, 1.5, number], 400),
            ([digest, time, 1.5], 400),
            ([digest, time, None], 400),
            ([digest, "10000-01-01T00:00:00Z", number], 400),
            ([digest, time + " " * 500, number], 400),
            ({}, 400),
            ([digest, time, 2**31 - 1], 200),
            ([digest, time, 2**31], 400),
            ([digest, time, 2**63 - 1], 400),
            ([digest, time, 2**64 - 1], 400),
            ([digest, "2027-03-01T23:00:00+23:00", -1], 200),
        ]:
            with self.subTest(forged):
                encoded = base64.urlsafe_b64encode(json.dumps(forged).encode()).decode().rstrip("=")
                self.assertEqual(self.client.get(f"{path}&cursor={encoded}").status_code, status)

    def test_a_cursor_of_another_order_or_filter_is_refused(self) -> None:
        [cursor] = re.findall("cursor=([^&>]+)", self.client.get("/tasks/?page_size=1")["Link"])
        for query in (
            "ordering=id",
            "ordering=-due_date",
            "status=pending",
            f"project={self.garden.pk}",
            "search=tomato",
        ):
            with self.subTest(query):
                self.assert_refused(self.client.get(f"/tasks/?{query}&cursor={cursor}"), 400, "cursor")

    def test_a_full_last_page_has_no_next_page(self) -> None:
        for size, pages in ((1, 3), (2, 2), (3, 1), (4, 1)):
            for ordering in ("id", "-id", "due_date", "-updated_at"):
                with self.subTest(size, ordering=ordering):
                    walked = self.ids_of_all_pages(f"/tasks/?page_size={size}&ordering={ordering}")
                    self.assertEqual(len(walked), pages)

    def test_count_is_the_number_of_all_matching_rows(self) -> None:
        response = self.client.get("/tasks/", {"count": 1, "page_size": 1, "project": self.garden.pk})
        self.assertEqual((len(response.json()), response["X-Total-Count"]), (1, "2"))
        self.assertNotIn("X-Total-Count", self.client.get("/tasks/?count=0"))

    def test_absent_ids_find_nothing(self) -> None:
        for parameter in ("project", "assignee"):
            for number in NO_ROW:
                with self.subTest(parameter=parameter, number=number[:20]):
                    response = self.client.get("/tasks/", {parameter: number, "count": 1})
                    self.assertEqual((response.status_code, response.json()), (200, []))
                    self.assertEqual(response["X-Total-Count"], "0")

    def test_the_refusal_of_a_bad_parameter_names_it(self) -> None:
        bad: list[tuple[str, str]] = [
            ("colour", "red"),
            ("format", "json"),
            ("status", "done"),
            ("status", ""),
            ("status", "PENDING"),
            ("project", "nine"),
            ("project", ""),
            ("project", "1.0"),
            ("project", "٣"),
            ("assignee", "me"),
            ("assignee", "null"),
            ("search", "ab"),
            ("search", "abc\x00"),
            ("ordering", "title"),
            ("ordering", "--id"),
            ("ordering", "id,due_date"),
            ("page_size", "101"),
            ("count", "yes"),
            ("cursor", "AAAA"),
            *[(name, time) for name in ("due_after", "due_before") for time in BAD_TIMES],
        ]
        for name, value in bad:
            with self.subTest(name=name, value=value):
                self.assert_refused(self.client.get("/tasks/", {name: value}), 400, name)

    def test_the_refusal_names_every_bad_parameter_if_none_is_unknown(self) -> None:
        response = self.client.get("/tasks/?status=done&colour=red&page_size=0")
        self.assert_refused(response, 400, "colour")
        self.assert_refused(self.client.get("/tasks/?project=x&page_size=0"), 400, "page_size", "project")

    def test_a_repeated_parameter_is_refused(self) -> None:
        response = self.client.get("/tasks/?status=pending&status=completed")
        self.assert_refused(response, 400, "status")

    def test_the_second_request_queries_no_table(self) -> None:
        for query in ("", f"?project={self.garden.pk}", "?status=pending&ordering=due_date", "?search=tomato"):
            with self.subTest(query):
                first = self.client.get(f"/tasks/{query}")
                with self.assertNumQueries(0):
                    second = self.client.get(f"/tasks/{query}")
                self.assertEqual(second.content, first.content)

    def test_the_list_is_fresh_after_every_kind_of_write(self) -> None:
        body = {"project": self.garden.pk, "title": "Mow", "due_date": "2027-03-05"}
        query = {"project": self.garden.pk}
        self.assertEqual(self.titles(**query), ["Water", "Weed"])
        with self.committed():
            created = self.send("POST", "/tasks/", body).json()
        self.assertEqual(self.titles(**query), ["Mow", "Water", "Weed"])
        with self.committed():
            self.send("PATCH", f"/tasks/{created['id']}/", {"title": "Rake"})
        self.assertEqual(self.titles(**query), ["Rake", "Water", "Weed"])
        with self.committed():
            self.client.delete(f"/tasks/{created['id']}/")
        self.assertEqual(self.titles(**query), ["Water", "Weed"])
        self.assertEqual(self.titles(), ["Bake", "Water", "Weed"])
        with self.committed():
            self.client.delete(f"/projects/{self.garden.pk}/")
        self.assertEqual(self.titles(**query), [])
        self.assertEqual(self.titles(), ["Bake"])

    def test_a_write_in_another_project_leaves_a_filtered_list_current(self) -> None:
        path = f"/tasks/?project={self.garden.pk}"
        etag = self.client.get(path)["ETag"]
        with self.committed():
            self.send("PATCH", f"/tasks/{self.bake.pk}/", {"title": "Cook"})
        with self.assertNumQueries(0):
            self.assertEqual(self.client.get(path, headers={"If-None-Match": etag}).status_code, 304)
        with self.committed():
            self.send("PATCH", f"/tasks/{self.weed.pk}/", {"title": "Dig"})
        self.assertEqual(self.client.get(path, headers={"If-None-Match": etag}).status_code, 200)

    def test_events_after_the_position_of_a_list_miss_no_change(self) -> None:
        with self.committed():
            self.send("PATCH", f"/tasks/{self.weed.pk}/", {"title": "Dig"})
        cursor = self.client.get("/tasks/")["X-Cursor"]
        self.assertEqual(cursor, "1")
        with self.committed():
            self.send("PATCH", f"/tasks/{self.weed.pk}/", {"title": "Sow"})
        events = self.client.get("/events/", {"after": cursor}).json()["events"]
        self.assertEqual([event["task"]["title"] for event in events], ["Sow"])

    def test_twenty_tasks_cost_as_many_queries_as_one(self) -> None:
        self.client.get("/tasks/")  # makes the tag versions known
        with self.assertNumQueries(1):
            self.client.get("/tasks/?page_size=1")
        TaskFactory.create_batch(20)
        with self.assertNumQueries(1):
            self.client.get("/tasks/?page_size=20")


class CreateTaskTest(OpenCase):
    @classmethod
    def setUpTestData(cls) -> None:
        cls.project = ProjectFactory()
        cls.member = MembershipFactory(project=cls.project).user
        cls.stranger = UserFactory()

    def body(self, **fields: Any) -> dict[str, Any]:
        return {"project": self.project.pk, "title": "Weed", "due_date": "2027-03-01T09:30:00Z", **fields}

    def test_a_task_is_created_pending_and_recorded(self) -> None:
        response = self.send("POST", "/tasks/", self.body())
        task = Task.objects.get()
        self.assertEqual(response.status_code, 201)
        self.assertEqual(response["Location"], f"/tasks/{task.pk}/")
        self.assertEqual(response.json(), task_json(task))
        self.assertEqual((task.title, task.status, task.assignee_id, task.version), ("Weed", "pending", None, 1))
        self.assertEqual(task.due_date, datetime(2027, 3, 1, 9, 30, tzinfo=UTC))
        self.assertEqual(self.events(), ["task.created"])

    def test_every_field_is_stored(self) -> None:
        body = self.body(description="All", status="in_progress", assignee=self.member.pk)
        response = self.send("POST", "/tasks/", body).json()
        for name, value in body.items():
            self.assertEqual(response[name], "2027-03-01T09:30:00.000000Z" if name == "due_date" else value)

    def test_due_dates_are_parsed_as_utc(self) -> None:
        for written, stored in [
            ("2027-03-01", "2027-03-01T00:00:00.000000Z"),
            ("2027-03-01T09:30", "2027-03-01T09:30:00.000000Z"),
            ("2027-03-01 09:30:00", "2027-03-01T09:30:00.000000Z"),
            ("2027-03-01T09:30:00.123456Z", "2027-03-01T09:30:00.123456Z"),
            ("2027-03-01T09:30:00+02:00", "2027-03-01T07:30:00.000000Z"),
            ("0001-01-01", "0001-01-01T00:00:00.000000Z"),
            ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59.000000Z"),
        ]:
            with self.subTest(written):
                response = self.send("POST", "/tasks/", self.body(due_date=written))
                self.assertEqual((response.status_code, response.json()["due_date"]), (201, stored))
                path = response["Location"]
                self.assertEqual(self.client.get(path).json()["due_date"], stored)

    def test_the_refusal_of_a_bad_field_names_it(self) -> None:
        bad: list[tuple[str, Any]] = [
            ("title", None),
            ("title", ""),
            ("title", "  "),
            ("title", "t" * 256),
            ("title", 5),
            ("title", True),
            ("title", {}),
            ("title", "We\x00ed"),
            ("description", 5),
            ("description", "\x00"),
            ("status", "done"),
            ("status", ""),
            ("status", None),
            ("status", 1),
            ("status", ["pending"]),
            ("due_date", None),
            ("due_date", ""),
            ("due_date", 1772357400),
            ("due_date", True),
            *[("due_date", time) for time in BAD_TIMES],
            ("project", None),
            ("project", str(self.project.pk)),
            ("project", True),
            ("project", 1.0),
            ("project", 0),
            ("project", -1),
            ("project", 999999),
            ("project", 2**31),
            ("project", 2**63),
            ("project", 2**70),
            ("assignee", str(self.member.pk)),
            ("assignee", False),
            ("assignee", 0),
            ("assignee", -1),
            ("assignee", 2**31),
            ("assignee", 2**63),
            ("assignee", 999999),
            ("assignee", self.stranger.pk),
            ("assignee", [self.member.pk]),
        ]
        for name, value in bad:
            with self.subTest(name=name, value=value), self.nothing_changes():
                self.assert_refused(self.send("POST", "/tasks/", self.body(**{name: value})), 400, name)

    def test_the_refusal_names_every_missing_field(self) -> None:
        with self.nothing_changes():
            self.assert_refused(self.send("POST", "/tasks/", {}), 400, "due_date", "project", "title")

    def test_lone_surrogates_are_refused(self) -> None:
        body = b'{"project": %d, "title": "\\ud800", "due_date": "2027-03-01"}' % self.project.pk
        with self.nothing_changes():
            self.assert_refused(self.send("POST", "/tasks/", body), 400)

    def test_a_surrogate_pair_is_a_character(self) -> None:
        body = b'{"project": %d, "title": "\\ud83c\\udf45", "due_date": "2027-03-01"}' % self.project.pk
        self.assertEqual(self.send("POST", "/tasks/", body).json()["title"], "🍅")


class TaskTest(OpenCase):
    @classmethod
    def setUpTestData(cls) -> None:
        cls.project = ProjectFactory()
        cls.member = MembershipFactory(project=cls.project).user
        cls.task = TaskFactory(
            project=cls.project,
            title="Weed",
            description="All",
            assignee=cls.member,
            due_date=datetime(2027, 3, 1, tzinfo=UTC),
        )
        cls.path = f"/tasks/{cls.task.pk}/"

    def test_a_task_is_returned_with_its_version_and_the_position(self) -> None:
        with self.assertNumQueries(2):
            response = self.client.get(self.path)
        self.assertEqual((response.status_code, response.json()), (200, task_json(self.task)))
        self.assertEqual((response["ETag"], response["X-Cursor"]), ('"1"', "0"))
        self.assertEqual(self.client.get(self.path, headers={"If-None-Match": '"1"'}).status_code, 304)

    def test_absent_tasks_are_not_found(self) -> None:
        body = {"title": "Dig", "due_date": "2027-03-01"}
        for absent in ABSENT_IDS:
            for method in ("GET", "PUT", "PATCH", "DELETE"):
                with self.subTest(id=absent, method=method), self.nothing_changes():
                    response = self.send(method, f"/tasks/{absent}/", body)
                    self.assert_refused(response, 404)
                    self.assertEqual(response.json(), {"detail": "There is no such task."})

    def test_put_requires_title_and_due_date_and_leaves_absent_fields(self) -> None:
        with self.nothing_changes():
            self.assert_refused(self.send("PUT", self.path, {"status": "completed"}), 400, "due_date", "title")
        response = self.send("PUT", self.path, {"title": "Dig", "due_date": "2027-03-02"})
        self.assertEqual(
            response.json(),
            {
                **task_json(self.task),
                "title": "Dig",
                "due_date": "2027-03-02T00:00:00.000000Z",
                "version": 2,
                "updated_at": response.json()["updated_at"],
            },
        )
        self.assertEqual(Event.objects.get().kind, "task.updated")

    def test_sending_a_task_back_unchanged_changes_nothing(self) -> None:
        with self.nothing_changes():
            for method in ("PUT", "PATCH"):
                response = self.send(method, self.path, self.client.get(self.path).json())
                self.assertEqual((response.status_code, response.json()), (200, task_json(self.task)))

    def test_a_task_cannot_move_to_another_project(self) -> None:
        other = ProjectFactory()
        for method in ("PUT", "PATCH"):
            for project in (other.pk, 999999, 0, 2**63):
                with self.subTest(method=method, project=project), self.nothing_changes():
                    body = {"title": "Dig", "due_date": "2027-03-01", "project": project}
                    response = self.send(method, self.path, body)
                    self.assert_refused(response, 400, "project")
                    self.assertEqual(response.json(), {"project": ["A task cannot move to another project."]})

    def test_an_assignee_is_cleared_by_null(self) -> None:
        response = self.send("PATCH", self.path, {"assignee": None})
        self.assertEqual((response.status_code, response.json()["assignee"]), (200, None))
        event = self.client.get("/events/?after=0").json()["events"][0]
        self.assertEqual((event["type"], event["changes"]), ("task.updated", ["assignee"]))

    def test_the_refusal_of_a_bad_field_names_it(self) -> None:
        stranger = UserFactory()
        for name, value in [
            ("title", "t" * 256),
            ("title", None),
            ("status", "done"),
            ("assignee", stranger.pk),
            ("assignee", 2**63),
            ("due_date", None),
            ("project", "nine"),
        ]:
            with self.subTest(name=name, value=value), self.nothing_changes():
                self.assert_refused(self.send("PATCH", self.path, {name: value}), 400, name)

    def test_if_match_accepts_the_current_version_and_refuses_an_old_one(self) -> None:
        changed = self.send("PATCH", self.path, {"status": "completed"}, If_Match='"1"')
        self.assertEqual((changed.status_code, changed.json()["version"]), (200, 2))
        body = {"title": "Dig", "due_date": "2027-03-01"}
        for method in ("PUT", "PATCH", "DELETE"):
            for tag in ('"1"', 'W/"2"', '"1", "7"'):
                with self.subTest(method=method, tag=tag), self.nothing_changes():
                    response = self.send(method, self.path, body, If_Match=tag)
                    self.assertEqual((response.status_code, response.json()), (412, changed.json()))
        self.assertEqual(self.send("DELETE", self.path, If_Match='"7", "2"').status_code, 204)

    def test_a_task_can_be_deleted_once(self) -> None:
        response = self.client.delete(self.path)
        self.assertEqual((response.status_code, response.content), (204, b""))
        self.assertFalse(Task.objects.exists())
        self.assertEqual(self.events(), ["task.deleted"])
        with self.nothing_changes():
            self.assert_refused(self.client.delete(self.path), 404)


class TaskAccessTest(ClosedCase):
    @classmethod
    def setUpTestData(cls) -> None:
        cls.project = ProjectFactory()
        cls.task = TaskFactory(project=cls.project)
        cls.path = f"/tasks/{cls.task.pk}/"
        cls.members = {
            role: MembershipFactory(project=cls.project, role=role).user for role in ("owner", "editor", "viewer")
        }
        cls.stranger = UserFactory()

    def body(self) -> dict[str, Any]:
        return {"project": self.project.pk, "title": "Weed", "due_date": "2027-03-01"}

    def test_an_anonymous_request_is_a_401(self) -> None:
        for method, path in [("GET", "/tasks/"), ("POST", "/tasks/"), ("GET", self.path), ("DELETE", self.path)]:
            with self.subTest(method=method, path=path), self.nothing_changes():
                self.assert_refused(self.send(method, path, self.body()), 401)

    def test_a_non_member_gets_404_for_every_request(self) -> None:
        self.client.force_login(self.stranger)
        for query in ("", f"?project={self.project.pk}", f"?search={self.task.title}"):
            response = self.client.get(f"/tasks/{query}{'&' if query else '?'}count=1")
            self.assertEqual((response.json(), response["X-Total-Count"]), ([], "0"))
        for method in ("GET", "PUT", "PATCH", "DELETE"):
            with self.subTest(method), self.nothing_changes():
                self.assert_refused(self.send(method, self.path, {"title": "Mine", "due_date": "2027-01-01"}), 404)

    def test_an_invisible_project_is_refused_like_an_absent_one(self) -> None:
        self.client.force_login(self.stranger)
        with self.nothing_changes():
            hidden = self.send("POST", "/tasks/", self.body())
            absent = self.send("POST", "/tasks/", {**self.body(), "project": 999999})
        self.assert_refused(hidden, 400, "project")
        self.assertEqual(hidden.content, absent.content)

    def test_viewers_may_only_read_and_editors_and_owners_may_also_write(self) -> None:
        for role, created, patched, deleted in [
            ("viewer", 403, 403, 403),
            ("editor", 201, 200, 204),
            ("owner", 201, 200, 204),
        ]:
            self.client.force_login(self.members[role])
            path = f"/tasks/{TaskFactory(project=self.project).pk}/"
            with self.subTest(role):
                self.assertEqual(self.client.get("/tasks/").status_code, 200)
                self.assertEqual(self.send("POST", "/tasks/", self.body()).status_code, created)
                self.assertEqual(self.send("PATCH", path, {"title": role}).status_code, patched)
                self.assertEqual(self.client.delete(path).status_code, deleted)

    def test_a_refused_write_changes_nothing(self) -> None:
        self.client.force_login(self.members["viewer"])
        with self.nothing_changes():
            self.send("POST", "/tasks/", self.body())
            self.send("PATCH", self.path, {"title": "Mine"})
            self.client.delete(self.path)

    def test_a_member_who_leaves_gets_an_empty_list_at_once(self) -> None:
        editor = self.members["editor"]
        self.client.force_login(editor)
        self.assertEqual(len(self.client.get("/tasks/").json()), 1)
        with self.committed():
            services.membership.remove_member(actor=SYSTEM, project_id=self.project.pk, user_id=editor.pk)
        self.assertEqual(self.client.get("/tasks/").json(), [])
        self.assert_refused(self.client.get(self.path), 404)
