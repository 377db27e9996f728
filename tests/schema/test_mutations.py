"""Each mutation and its errors. A refused mutation leaves no row and no event."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson

from backend.projects.models import Comment, Event, Membership, Project, Role, Task
from tests.factories import CommentFactory, MembershipFactory, ProjectFactory, TaskFactory, UserFactory
from tests.schema.cases import ABSENT_IDS, ClosedCase, OpenCase, mutation

DUE = "2027-03-01T09:30:00.000000Z"
LATER = "2027-04-01T09:30:00.000000Z"

INVALID_TEXTS = [("a\x00b", "NULL_CHARACTERS"), ("a\ud800b", "SURROGATES"), ("\udc00", "SURROGATES")]
INVALID_DESCRIPTIONS = [*INVALID_TEXTS, ("x" * (64 * 1024 + 1), "MAX_LENGTH")]
INVALID_TITLES = [*INVALID_TEXTS, ("", "BLANK"), (" \n", "BLANK"), ("x" * 256, "MAX_LENGTH")]
INVALID_DATE_TIMES = [
    "tomorrow",
    "",
    "2027-02-30",
    "2027-02-30T00:00:00Z",
    "2027-13-01T00:00:00Z",
    "2027-03-01T25:00:00Z",
    "2027-03-01T09:30:00+25:00",
    "9999-12-31T23:59:59-12:00",
    "0001-01-01T00:00:00+14:00",
    "10000-01-01T00:00:00Z",
    "2027-03-01x09:30:00Z",
    "2027-03-01\x0009:30:00Z",
    "2027-03-01T09:30:00Z\x00",
    "2027-03-01T09:30:00\ud800",
    "\ud800",
    1772357400,
    1772357400.5,
    True,
    [],
    {},
]


class MutationCase(OpenCase):
    @classmethod
    def setUpTestData(cls) -> None:
        cls.ada = UserFactory(first_name="Ada", last_name="Lovelace")
        cls.project = ProjectFactory(name="Garden", description="Behind the house")
        MembershipFactory(user=cls.ada, project=cls.project)
        cls.task = TaskFactory(
            project=cls.project,
            title="Weed",
            description="All of it",
            status="in_progress",
            due_date=datetime(2027, 3, 1, 9, 30, tzinfo=UTC),
            assignee=cls.ada,
        )
        cls.comment = CommentFactory(task=cls.task)

    def last_event(self) -> tuple[str, dict[str, Any]]:
        event = Event.objects.latest("position")
        return event.kind, orjson.loads(event.payload)

    def assert_refused(self, name: str, input: dict[str, Any], field: str | None, code: str) -> None:
        with self.subTest(name, **input):
            kind = "ERROR" if field is None else "VALIDATION"
            self.assertEqual(self.messages(name, **input), [(kind, field, code)])


class ProjectTests(MutationCase):
    def test_a_project_is_created_with_the_fields_of_the_input(self) -> None:
        result = self.change("createProject", name=" Kitchen ", description="With a stove")
        project = Project.objects.latest("pk")
        self.assertEqual(
            result, {"id": str(project.pk), "name": "Kitchen", "description": "With a stove", "version": 1}
        )
        self.assertEqual((project.name, project.description, project.version), ("Kitchen", "With a stove", 1))
        self.assertEqual(self.events(), ["project.created"])

    def test_a_description_that_is_absent_or_null_is_empty(self) -> None:
        for values in ({"name": "Kitchen"}, {"name": "Kitchen", "description": None}):
            with self.subTest(values):
                self.assertEqual(self.change("createProject", **values)["description"], "")

    def test_an_update_changes_only_the_fields_of_the_input(self) -> None:
        pk = str(self.project.pk)
        for version, (values, name, description) in enumerate(
            [
                ({"name": "Park"}, "Park", "Behind the house"),
                ({"description": "Before it"}, "Park", "Before it"),
                ({"name": "Wood", "description": None}, "Wood", ""),
            ],
            start=2,
        ):
            with self.subTest(values):
                result = self.change("updateProject", id=pk, **values)
                self.assertEqual(result, {"id": pk, "name": name, "description": description, "version": version})
                self.project.refresh_from_db()
                self.assertEqual((self.project.name, self.project.description), (name, description))
                kind, payload = self.last_event()
                self.assertEqual((kind, payload["changes"]), ("project.updated", list(values)))
        self.task.refresh_from_db()
        self.assertEqual(self.task.version, 1)

    def test_an_update_to_the_current_values_changes_nothing(self) -> None:
        for values in ({}, {"name": "Garden"}, {"name": " Garden ", "description": "Behind the house"}, {"version": 1}):
            with self.subTest(values), self.nothing_changes():
                self.assertEqual(self.change("updateProject", id=self.project.pk, **values)["version"], 1)

    def test_deleting_a_project_returns_it_as_it_was_and_deletes_its_contents(self) -> None:
        result = self.change("deleteProject", id=self.project.pk, version=1)
        self.assertEqual(
            result,
            {"id": str(self.project.pk), "name": "Garden", "description": "Behind the house", "version": 1},
        )
        self.assertEqual([model.objects.count() for model in (Project, Task, Comment, Membership)], [0, 0, 0, 0])
        self.assertEqual(self.events(), ["project.deleted"])

    def test_an_invalid_name_is_refused(self) -> None:
        for name, code in INVALID_TITLES:
            self.assert_refused("createProject", {"name": name}, "name", code)
            self.assert_refused("updateProject", {"id": self.project.pk, "name": name}, "name", code)
        self.assert_refused("updateProject", {"id": self.project.pk, "name": None}, "name", "NULL")

    def test_a_description_that_cannot_be_stored_is_refused(self) -> None:
        for text, code in INVALID_DESCRIPTIONS:
            self.assert_refused("createProject", {"name": "A", "description": text}, "description", code)
            self.assert_refused("updateProject", {"id": self.project.pk, "description": text}, "description", code)

    def test_every_invalid_field_has_a_message(self) -> None:
        self.assertEqual(
            self.messages("createProject", name="x" * 256, description="\x00"),
            [("VALIDATION", "name", "MAX_LENGTH"), ("VALIDATION", "description", "NULL_CHARACTERS")],
        )

    def test_a_message_explains_the_error(self) -> None:
        result = self.data(mutation("createProject"), input={"name": "x" * 256})["result"]
        self.assertEqual(
            result["messages"],
            [
                {
                    "kind": "VALIDATION",
                    "field": "name",
                    "message": "Ensure this value has at most 255 characters (it has 256).",
                    "code": "MAX_LENGTH",
                }
            ],
        )

    def test_the_longest_name_is_stored_whole(self) -> None:
        for name in ("x" * 255, "🌱" * 255):
            with self.subTest(name[0]):
                self.assertEqual(self.change("createProject", name=name)["name"], name)

    def test_an_absent_project_is_refused(self) -> None:
        for absent in ABSENT_IDS:
            self.assert_refused("updateProject", {"id": absent, "name": "Park"}, None, "NOT_FOUND")
            self.assert_refused("deleteProject", {"id": absent}, None, "NOT_FOUND")

    def test_an_old_version_is_a_conflict(self) -> None:
        self.change("updateProject", id=self.project.pk, version=1, name="Park")
        for version in (1, 0, -1, 3, 2**31 - 1):
            for name in ("updateProject", "deleteProject"):
                with self.subTest(name, version=version):
                    self.assertEqual(
                        self.messages(name, id=self.project.pk, version=version),
                        [("VALIDATION", None, "CONFLICT")],
                    )


class TaskTests(MutationCase):
    def test_a_task_is_created_with_the_fields_of_the_input(self) -> None:
        result = self.change(
            "createTask",
            projectId=self.project.pk,
            title=" Mow ",
            description="The lawn",
            status="COMPLETED",
            dueDate="2027-03-01T11:30:00+02:00",
            assigneeId=self.ada.pk,
        )
        task = Task.objects.latest("pk")
        self.assertEqual(
            result,
            {
                "id": str(task.pk),
                "title": "Mow",
                "description": "The lawn",
                "status": "COMPLETED",
                "dueDate": DUE,
                "version": 1,
                "project": {"id": str(self.project.pk)},
                "assignee": {"name": "Ada Lovelace"},
            },
        )
        self.assertEqual(
            (task.project_id, task.title, task.description, task.status, task.assignee_id, task.due_date),
            (self.project.pk, "Mow", "The lawn", "completed", self.ada.pk, self.task.due_date),
        )
        self.assertEqual(self.events(), ["task.created"])
        self.project.refresh_from_db()
        self.assertEqual(self.project.version, 1)

    def test_a_task_is_pending_and_unassigned_by_default(self) -> None:
        needed = {"projectId": self.project.pk, "title": "Mow", "dueDate": DUE}
        for values in ({}, {"description": None, "assigneeId": None}):
            with self.subTest(values):
                result = self.change("createTask", **needed, **values)
                self.assertEqual((result["status"], result["description"], result["assignee"]), ("PENDING", "", None))

    def test_a_due_date_is_stored_in_utc(self) -> None:
        for text, stored in [
            ("2027-03-01T09:30:00Z", DUE),
            ("2027-03-01T09:30:00", DUE),
            ("2027-02-28T23:30:00-10:00", DUE),
            ("2027-03-01T09:30:00.123456+00:00", "2027-03-01T09:30:00.123456Z"),
            ("2027-03-01", "2027-03-01T00:00:00.000000Z"),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000000Z"),
            ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"),
        ]:
            with self.subTest(text):
                result = self.change("createTask", projectId=self.project.pk, title="Mow", dueDate=text)
                self.assertEqual(result["dueDate"], stored)
                self.assertEqual(
                    self.data("query ($id: ID!) { task(id: $id) { dueDate } }", id=result["id"]),
                    {"task": {"dueDate": stored}},
                )

    def test_an_update_changes_only_the_fields_of_the_input(self) -> None:
        expected = {
            "id": str(self.task.pk),
            "title": "Weed",
            "description": "All of it",
            "status": "IN_PROGRESS",
            "dueDate": DUE,
            "version": 1,
            "project": {"id": str(self.project.pk)},
            "assignee": {"name": "Ada Lovelace"},
        }
        for values, shown, changes in [
            ({"title": "Mow"}, {"title": "Mow"}, ["title"]),
            ({"description": None}, {"description": ""}, ["description"]),
            ({"status": "COMPLETED"}, {"status": "COMPLETED"}, ["status"]),
            ({"dueDate": LATER}, {"dueDate": LATER}, ["due_date"]),
            ({"assigneeId": None}, {"assignee": None}, ["assignee"]),
            (
                {"title": "Rake", "assigneeId": str(self.ada.pk)},
                {"title": "Rake", "assignee": {"name": "Ada Lovelace"}},
                ["title", "assignee"],
            ),
        ]:
            with self.subTest(values):
                expected |= {**shown, "version": expected["version"] + 1}
                self.assertEqual(self.change("updateTask", id=self.task.pk, **values), expected)
                kind, payload = self.last_event()
                self.assertEqual((kind, payload["changes"]), ("task.updated", changes))

    def test_an_update_to_the_current_values_changes_nothing(self) -> None:
        same = {"title": " Weed", "status": "IN_PROGRESS", "dueDate": "2027-03-01T10:30:00+01:00"}
        for values in ({}, {"version": 1}, {"assigneeId": self.ada.pk}, same):
            with self.subTest(values), self.nothing_changes():
                self.assertEqual(self.change("updateTask", id=self.task.pk, **values)["version"], 1)

    def test_deleting_a_task_returns_it_as_it_was_and_deletes_its_comments(self) -> None:
        result = self.change("deleteTask", id=self.task.pk, version=1)
        self.assertEqual(
            result,
            {
                "id": str(self.task.pk),
                "title": "Weed",
                "description": "All of it",
                "status": "IN_PROGRESS",
                "dueDate": DUE,
                "version": 1,
                "project": {"id": str(self.project.pk)},
                "assignee": {"name": "Ada Lovelace"},
            },
        )
        self.assertEqual((Task.objects.count(), Comment.objects.count(), self.events()), (0, 0, ["task.deleted"]))

    def test_an_invalid_title_is_refused(self) -> None:
        needed = {"projectId": self.project.pk, "dueDate": DUE}
        for title, code in INVALID_TITLES:
            self.assert_refused("createTask", {**needed, "title": title}, "title", code)
            self.assert_refused("updateTask", {"id": self.task.pk, "title": title}, "title", code)

    def test_a_description_that_cannot_be_stored_is_refused(self) -> None:
        needed = {"projectId": self.project.pk, "title": "Mow", "dueDate": DUE}
        for text, code in INVALID_DESCRIPTIONS:
            self.assert_refused("createTask", {**needed, "description": text}, "description", code)
            self.assert_refused("updateTask", {"id": self.task.pk, "description": text}, "description", code)

    def test_null_for_a_required_field_is_refused(self) -> None:
        for field in ("title", "status", "dueDate"):
            self.assert_refused("updateTask", {"id": self.task.pk, field: None}, field, "NULL")

    def test_a_new_task_without_a_status_is_pending(self) -> None:
        needed = {"projectId": self.project.pk, "title": "Mow", "dueDate": DUE}
        for values in ({}, {"status": None}):
            self.assertEqual(self.change("createTask", **needed, **values)["status"], "PENDING")

    def test_an_absent_task_or_project_is_refused(self) -> None:
        for absent in ABSENT_IDS:
            self.assert_refused("updateTask", {"id": absent, "title": "Mow"}, None, "NOT_FOUND")
            self.assert_refused("deleteTask", {"id": absent}, None, "NOT_FOUND")
            self.assert_refused(
                "createTask", {"projectId": absent, "title": "Mow", "dueDate": DUE}, "projectId", "NOT_FOUND"
            )

    def test_an_assignee_must_be_a_member(self) -> None:
        needed = {"projectId": self.project.pk, "title": "Mow", "dueDate": DUE}
        for absent in [*ABSENT_IDS, str(UserFactory().pk)]:
            self.assert_refused("createTask", {**needed, "assigneeId": absent}, "assigneeId", "NOT_A_MEMBER")
            self.assert_refused("updateTask", {"id": self.task.pk, "assigneeId": absent}, "assigneeId", "NOT_A_MEMBER")

    def test_an_old_version_is_a_conflict(self) -> None:
        self.change("updateTask", id=self.task.pk, version=1, title="Mow")
        for version in (1, 0, -1, 3, 2**31 - 1):
            for name in ("updateTask", "deleteTask"):
                with self.subTest(name, version=version):
                    self.assertEqual(
                        self.messages(name, id=self.task.pk, version=version), [("VALIDATION", None, "CONFLICT")]
                    )

    def test_a_conflict_names_the_current_version(self) -> None:
        self.change("updateTask", id=self.task.pk, title="Mow")
        result = self.data(mutation("updateTask"), input={"id": self.task.pk, "version": 1})["result"]
        self.assertEqual(result["messages"][0]["message"], "The current version is 2.")


class CommentTests(MutationCase):
    def test_an_anonymous_comment_has_the_author_of_the_input(self) -> None:
        result = self.change("addComment", taskId=self.task.pk, content=" Done?\n", author=" Bob ")
        comment = Comment.objects.latest("pk")
        self.assertEqual(
            result,
            {"id": str(comment.pk), "author": "Bob", "content": " Done?\n", "task": {"id": str(self.task.pk)}},
        )
        self.assertEqual((comment.task_id, comment.author, comment.content), (self.task.pk, "Bob", " Done?\n"))
        self.assertEqual(self.events(), ["task.commented"])

    def test_a_comment_does_not_change_its_task(self) -> None:
        before = Task.objects.values().get()
        self.change("addComment", taskId=self.task.pk, content="Done?", author="Bob")
        self.assertEqual(Task.objects.values().get(), before)

    def test_an_anonymous_comment_needs_a_valid_author(self) -> None:
        values = {"taskId": self.task.pk, "content": "Done?"}
        self.assert_refused("addComment", values, "author", "NULL")
        self.assert_refused("addComment", {**values, "author": None}, "author", "NULL")
        for author, code in INVALID_TITLES:
            self.assert_refused("addComment", {**values, "author": author}, "author", code)

    def test_a_comment_needs_content_that_can_be_stored(self) -> None:
        values = {"taskId": self.task.pk, "author": "Bob"}
        for content, code in [*INVALID_TEXTS, ("", "BLANK"), (" \n", "BLANK"), ("x" * (16 * 1024 + 1), "MAX_LENGTH")]:
            self.assert_refused("addComment", {**values, "content": content}, "content", code)

    def test_an_absent_task_is_refused(self) -> None:
        for absent in ABSENT_IDS:
            self.assert_refused("addComment", {"taskId": absent, "content": "?", "author": "Bob"}, None, "NOT_FOUND")


class SignedInCommentTests(ClosedCase):
    def test_a_signed_in_user_comments_under_their_own_name(self) -> None:
        ada = UserFactory(first_name="Ada", last_name="Lovelace")
        task = TaskFactory(project=MembershipFactory(user=ada, role=Role.EDITOR).project)
        self.client.force_login(ada)
        for author in ({}, {"author": None}, {"author": "Ada Lovelace"}):
            with self.subTest(author):
                result = self.change("addComment", taskId=task.pk, content="Done?", **author)
                self.assertEqual(result["author"], "Ada Lovelace")
        self.assertEqual(set(Event.objects.values_list("actor_id", "actor_name")), {(ada.pk, "Ada Lovelace")})

    def test_a_signed_in_user_may_not_name_another_author(self) -> None:
        for user in (MembershipFactory(role=Role.OWNER).user, UserFactory(is_staff=True)):
            task = TaskFactory(project=MembershipFactory(user=user, role=Role.EDITOR).project)
            self.client.force_login(user)
            for author in ("Bob", "", "x" * 256, "\x00"):
                with self.subTest(author[:3]), self.nothing_changes():
                    values = {"taskId": task.pk, "content": "Done?", "author": author}
                    self.assertEqual(self.messages("addComment", **values), [("PERMISSION", None, "FORBIDDEN")])

    def test_a_very_long_name_of_a_user_is_truncated_in_a_comment(self) -> None:
        ada = UserFactory(first_name="A" * 150, last_name="L" * 150)
        task = TaskFactory(project=MembershipFactory(user=ada, role=Role.EDITOR).project)
        self.client.force_login(ada)
        result = self.change("addComment", taskId=task.pk, content="Done?")
        self.assertEqual(result["author"], f"{'A' * 150} {'L' * 104}")


class RequestErrorTests(MutationCase):
    """Input that GraphQL's types reject."""

    def valid(self) -> dict[str, dict[str, Any]]:
        return {
            "createProject": {"name": "Kitchen"},
            "updateProject": {"id": self.project.pk, "name": "Kitchen"},
            "deleteProject": {"id": self.project.pk},
            "createTask": {"projectId": self.project.pk, "title": "Mow", "dueDate": DUE},
            "updateTask": {"id": self.task.pk, "title": "Mow"},
            "deleteTask": {"id": self.task.pk},
            "addComment": {"taskId": self.task.pk, "content": "Done?", "author": "Bob"},
        }

    def assert_not_executed(self, name: str, input: Any) -> None:
        with self.subTest(name, input=input), self.nothing_changes():
            self.assertEqual(self.request_error_code(mutation(name), input=input), "GRAPHQL_VALIDATION_FAILED")

    def test_a_required_field_may_not_be_absent_or_null(self) -> None:
        for name, required in [
            ("createProject", ["name"]),
            ("updateProject", ["id"]),
            ("deleteProject", ["id"]),
            ("createTask", ["projectId", "title", "dueDate"]),
            ("updateTask", ["id"]),
            ("deleteTask", ["id"]),
            ("addComment", ["taskId", "content"]),
        ]:
            valid = self.valid()[name]
            for field in required:
                self.assert_not_executed(name, {**valid, field: None})
                self.assert_not_executed(name, {key: value for key, value in valid.items() if key != field})

    def test_an_input_of_another_shape_is_not_executed(self) -> None:
        for name, valid in self.valid().items():
            for values in (None, [], "x", 5, {}, {**valid, "colour": "red"}):
                self.assert_not_executed(name, values)

    def test_a_value_of_another_type_is_not_executed(self) -> None:
        task, project = {"id": self.task.pk}, {"id": self.project.pk}
        for name, values in [
            ("updateProject", {**project, "name": 5}),
            ("updateProject", {**project, "description": ["x"]}),
            ("updateProject", {**project, "version": "1"}),
            ("updateProject", {**project, "version": 1.5}),
            ("updateProject", {**project, "version": 2**31}),
            ("deleteTask", {**task, "version": True}),
            ("deleteTask", {"id": 1.5}),
            ("deleteTask", {"id": True}),
            ("updateTask", {**task, "title": {"text": "Mow"}}),
            ("updateTask", {**task, "status": "DONE"}),
            ("updateTask", {**task, "status": "pending"}),
            ("updateTask", {**task, "status": 1}),
            ("updateTask", {**task, "assigneeId": []}),
        ]:
            self.assert_not_executed(name, values)

    def test_an_input_with_an_invalid_due_date_is_not_executed(self) -> None:
        for due_date in INVALID_DATE_TIMES:
            for name in ("createTask", "updateTask"):
                self.assert_not_executed(name, {**self.valid()[name], "dueDate": due_date})

    def test_literals_are_checked_like_variables(self) -> None:
        for literal, code in [
            ('{id: %s, dueDate: "2027-02-30"}', "GRAPHQL_VALIDATION_FAILED"),
            ('{id: %s, dueDate: "9999-12-31T23:59:59-12:00"}', "GRAPHQL_VALIDATION_FAILED"),
            ("{id: %s, dueDate: 1772357400}", "GRAPHQL_VALIDATION_FAILED"),
            ("{id: %s, status: DONE}", "GRAPHQL_VALIDATION_FAILED"),
            ('{id: %s, status: "PENDING"}', "GRAPHQL_VALIDATION_FAILED"),
            ("{id: %s, version: 2147483648}", "GRAPHQL_VALIDATION_FAILED"),
            ("{id: %s, title: 5}", "GRAPHQL_VALIDATION_FAILED"),
            ('{id: %s, colour: "red"}', "GRAPHQL_VALIDATION_FAILED"),
            (r'{id: %s, title: "\ud800"}', "GRAPHQL_PARSE_FAILED"),
            ('{id: %s, title: "\ud800"}', "GRAPHQL_PARSE_FAILED"),
            ('{id: %s, title: "Mow}', "GRAPHQL_PARSE_FAILED"),
        ]:
            with self.subTest(ascii(literal)), self.nothing_changes():
                document = f"mutation {{ updateTask(input: {literal % self.task.pk}) {{ __typename }} }}"
                self.assertEqual(self.request_error_code(document), code)

    def test_an_escaped_character_in_a_literal_is_that_character(self) -> None:
        name = r'"\ud83c\udf31 \u{1F331}"'
        document = f"mutation {{ createProject(input: {{name: {name}}}) {{ ... on Project {{ name }} }} }}"
        self.assertEqual(self.data(document), {"createProject": {"name": "🌱 🌱"}})

    def test_a_nul_in_a_literal_is_refused_like_one_in_a_variable(self) -> None:
        for name in (r'"a\u0000b"', '"a\x00b"'):
            with self.subTest(name), self.nothing_changes():
                document = f"""mutation {{
                  createProject(input: {{name: {name}}}) {{ ... on OperationInfo {{ messages {{ field code }} }} }}
                }}"""
                self.assertEqual(
                    self.data(document),
                    {"createProject": {"messages": [{"field": "name", "code": "NULL_CHARACTERS"}]}},
                )
