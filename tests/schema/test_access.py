"""Who may do what. What a viewer may not see does not exist for them, whichever way it is asked for."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

from django.test import Client

from backend.projects.access import SYSTEM
from backend.projects.models import Membership, Project, Role
from backend.projects.services.membership import add_member, remove_member
from backend.projects.services.project import delete_project, update_project
from tests.factories import (
    CommentFactory,
    MembershipFactory,
    ProjectFactory,
    SummaryReportFactory,
    TaskFactory,
    UserFactory,
)
from tests.schema.cases import ClosedCase, OpenCase, mutation

DUE = "2027-03-01T09:30:00.000000Z"
MARCH = datetime(2027, 3, 1, tzinfo=UTC)


class AnonymousTests(ClosedCase):
    def assert_sign_in_first(self, response: Any) -> None:
        self.assertEqual(response.status_code, 401)
        self.assertEqual(response["WWW-Authenticate"], 'Bearer realm="Taskwire"')
        self.assertEqual(
            response.json(), {"errors": [{"message": "Sign in first.", "extensions": {"code": "UNAUTHENTICATED"}}]}
        )

    def test_no_operation_is_executed(self) -> None:
        given = {"input": {"name": "Garden"}}
        with self.nothing_changes():
            self.assert_sign_in_first(self.post("{ cursor }"))
            self.assert_sign_in_first(self.post("{ me { name } }"))
            self.assert_sign_in_first(self.post("{ __schema { types { name } } }"))
            self.assert_sign_in_first(self.post("this is no GraphQL"))
            self.assert_sign_in_first(self.post(mutation("createProject"), given))
            self.assert_sign_in_first(self.client.get("/graphql/", {"query": "{ cursor }"}))

    def test_a_browser_is_led_to_the_sign_in_page_and_back(self) -> None:
        response = self.client.get("/graphql/", headers={"Accept": "text/html,*/*;q=0.8"})
        self.assertEqual((response.status_code, response["Location"]), (302, "/accounts/sign-in/?next=/graphql/"))

    def test_an_account_that_is_switched_off_is_nobody(self) -> None:
        user = UserFactory()
        self.client.force_login(user)
        self.assertEqual(self.data("{ me { name } }"), {"me": {"name": user.username}})
        user.is_active = False
        user.save()
        self.assert_sign_in_first(self.post("{ me { name } }"))


class SessionTests(ClosedCase):
    def setUp(self) -> None:
        self.client = Client(enforce_csrf_checks=True)
        self.client.force_login(MembershipFactory().user)

    def test_an_operation_without_a_csrf_token_is_refused(self) -> None:
        for headers in ({}, {"X_CSRFToken": "x" * 32}):
            with self.subTest(headers), self.nothing_changes():
                response = self.post(mutation("createProject"), {"input": {"name": "Mine"}}, **headers)
                self.assertEqual(response.status_code, 403)
                self.assertEqual(response.json()["errors"][0]["extensions"], {"code": "FORBIDDEN"})

    def test_an_operation_carries_the_token_that_graphiql_was_given(self) -> None:
        self.assertEqual(self.client.get("/graphql/", headers={"Accept": "text/html"}).status_code, 200)
        token = self.client.cookies["csrftoken"].value
        response = self.post(mutation("createProject"), {"input": {"name": "Mine"}}, X_CSRFToken=token)
        self.assertEqual(response.status_code, 200)
        self.assertEqual(response.json()["data"]["result"]["name"], "Mine")

    def test_a_get_needs_no_token(self) -> None:
        response = self.client.get("/graphql/", {"query": "{ projects { totalCount } }"})
        self.assertEqual(response.json(), {"data": {"projects": {"totalCount": 1}}})


class OpenTests(OpenCase):
    def test_who_is_not_signed_in_needs_no_token(self) -> None:
        self.client = Client(enforce_csrf_checks=True)
        self.assertEqual(self.change("createProject", name="Garden")["name"], "Garden")

    def test_a_project_of_nobody_has_no_members(self) -> None:
        self.change("createProject", name="Garden")
        self.assertEqual(Membership.objects.count(), 0)


class SightTests(ClosedCase):
    """A member of one project, next to a project that looks just like it."""

    @classmethod
    def setUpTestData(cls) -> None:
        cls.ada = UserFactory()
        cls.mine, cls.other = (ProjectFactory(name=f"Garden {n}") for n in "AB")
        MembershipFactory(user=cls.ada, project=cls.mine, role=Role.VIEWER)
        MembershipFactory(project=cls.other, role=Role.OWNER)
        cls.my_task, cls.other_task = (TaskFactory(project=one, title="Weed") for one in (cls.mine, cls.other))
        for task in (cls.my_task, cls.other_task):
            CommentFactory(task=task)
        day = date(2027, 3, 1)
        cls.my_report, cls.other_report = (SummaryReportFactory(project=p, date=day) for p in (cls.mine, cls.other))
        for project in (cls.mine, cls.other):
            update_project(actor=SYSTEM, project_id=project.pk, changes={"description": "Green"})

    def setUp(self) -> None:
        self.client.force_login(self.ada)

    def test_a_member_sees_their_own_rows(self) -> None:
        document = """query ($project: ID!, $task: ID!, $report: ID!) {
          project(id: $project) { name tasks { totalCount nodes { title } } }
          task(id: $task) { title project { name } comments { totalCount } }
          report(id: $report) { project { name } }
        }"""
        self.assertEqual(
            self.data(document, project=self.mine.pk, task=self.my_task.pk, report=self.my_report.pk),
            {
                "project": {"name": "Garden A", "tasks": {"totalCount": 1, "nodes": [{"title": "Weed"}]}},
                "task": {"title": "Weed", "project": {"name": "Garden A"}, "comments": {"totalCount": 1}},
                "report": {"project": {"name": "Garden A"}},
            },
        )

    def test_what_is_not_theirs_is_answered_like_what_is_absent(self) -> None:
        for field, invisible in (
            ("project", self.other.pk),
            ("task", self.other_task.pk),
            ("report", self.other_report.pk),
        ):
            with self.subTest(field):
                document = f"query ($id: ID!) {{ {field}(id: $id) {{ id }} }}"
                self.assertEqual(self.gql(document, id=invisible), {"data": {field: None}})
                self.assertEqual(self.gql(document, id=999999), {"data": {field: None}})

    def test_lists_counts_and_search_hold_their_own_rows_alone(self) -> None:
        for field, mine in (
            ("projects", self.mine.pk),
            ("tasks", self.my_task.pk),
            ("reports", self.my_report.pk),
            ('projects(filter: {search: "Garden"})', self.mine.pk),
            ('tasks(filter: {search: "Weed"})', self.my_task.pk),
            ("tasks(order: {field: DUE_DATE}, last: 5)", self.my_task.pk),
        ):
            with self.subTest(field):
                [found] = self.data(f"{{ {field} {{ totalCount nodes {{ id }} edges {{ node {{ id }} }} }} }}").values()
                row = {"id": str(mine)}
                self.assertEqual(found, {"totalCount": 1, "nodes": [row], "edges": [{"node": row}]})

    def test_a_list_narrowed_to_a_project_that_is_not_theirs_is_empty(self) -> None:
        for project_id in (self.other.pk, 999999):
            for field in (f"tasks(filter: {{projectId: {project_id}}})", f"reports(projectId: {project_id})"):
                with self.subTest(field):
                    [found] = self.data(f"{{ {field} {{ totalCount nodes {{ id }} }} }}").values()
                    self.assertEqual(found, {"totalCount": 0, "nodes": []})

    def test_a_list_that_staff_have_read_is_not_served_to_a_member(self) -> None:
        document = f"{{ tasks(filter: {{projectId: {self.other.pk}}}) {{ nodes {{ id }} }} projects {{ totalCount }} }}"
        self.client.force_login(UserFactory(is_staff=True))
        seen_by_staff = {"tasks": {"nodes": [{"id": str(self.other_task.pk)}]}, "projects": {"totalCount": 2}}
        self.assertEqual(self.data(document), seen_by_staff)
        self.client.force_login(self.ada)
        self.assertEqual(self.data(document), {"tasks": {"nodes": []}, "projects": {"totalCount": 1}})

    def test_events_are_those_of_their_own_projects(self) -> None:
        document = (
            "query ($project: ID) { events(after: 0, projectId: $project) { nodes { projectId } cursor hasMore } }"
        )
        document = document.replace("after: 0", 'after: "0"')
        mine = [{"projectId": str(self.mine.pk)}]
        for project_id, nodes in ((None, mine), (self.mine.pk, mine), (self.other.pk, []), (999999, [])):
            with self.subTest(project_id):
                page = self.data(document, project=project_id)["events"]
                self.assertEqual(page, {"nodes": nodes, "cursor": "2", "hasMore": False})

    def heard_of(self) -> list[str]:
        """Projects of the events that are shown, one after the other."""
        document = '{ events(after: "0") { nodes { projectId } } }'
        return [event["projectId"] for event in self.data(document)["events"]["nodes"]]

    def test_who_joins_may_read_all_that_is_kept_and_who_leaves_nothing(self) -> None:
        add_member(actor=SYSTEM, project_id=self.other.pk, username=self.ada.username, role=Role.VIEWER)
        self.assertEqual(self.heard_of(), [str(self.mine.pk), str(self.other.pk)])
        remove_member(actor=SYSTEM, project_id=self.mine.pk, user_id=self.ada.pk)
        self.assertEqual(self.heard_of(), [str(self.other.pk)])

    def test_the_end_of_a_project_is_told_to_those_who_could_see_it(self) -> None:
        for project in (self.other, self.mine):
            delete_project(actor=SYSTEM, project_id=project.pk)
        document = '{ events(after: "2") { nodes { kind projectId } } }'
        self.assertEqual(
            self.data(document)["events"]["nodes"], [{"kind": "PROJECT_DELETED", "projectId": str(self.mine.pk)}]
        )

    def test_staff_see_all(self) -> None:
        self.client.force_login(UserFactory(is_staff=True))
        document = """query ($task: ID!) {
          projects { totalCount nodes { tasks { totalCount } } } tasks { totalCount } reports { totalCount }
          task(id: $task) { project { name } } events(after: "0") { nodes { kind } }
        }"""
        self.assertEqual(
            self.data(document, task=self.other_task.pk),
            {
                "projects": {"totalCount": 2, "nodes": [{"tasks": {"totalCount": 1}}, {"tasks": {"totalCount": 1}}]},
                "tasks": {"totalCount": 2},
                "reports": {"totalCount": 2},
                "task": {"project": {"name": "Garden B"}},
                "events": {"nodes": [{"kind": "PROJECT_UPDATED"}, {"kind": "PROJECT_UPDATED"}]},
            },
        )


class WriteTests(ClosedCase):
    @classmethod
    def setUpTestData(cls) -> None:
        cls.project = ProjectFactory(name="Garden")
        cls.task = TaskFactory(project=cls.project)
        cls.members = {role: MembershipFactory(project=cls.project, role=role).user for role in Role}

    def writes(self, project_id: int, task_id: int) -> list[tuple[str, dict[str, Any]]]:
        return [
            ("updateProject", {"id": project_id, "name": "Park"}),
            ("createTask", {"projectId": project_id, "title": "Mow", "dueDate": DUE}),
            ("updateTask", {"id": task_id, "title": "Mow"}),
            ("addComment", {"taskId": task_id, "content": "Done?"}),
            ("deleteTask", {"id": task_id}),
            ("deleteProject", {"id": project_id}),
        ]

    def test_a_viewer_may_only_read(self) -> None:
        self.client.force_login(self.members[Role.VIEWER])
        for name, given in self.writes(self.project.pk, self.task.pk):
            with self.subTest(name):
                self.assertEqual(self.messages(name, **given), [("PERMISSION", None, "FORBIDDEN")])

    def test_an_editor_writes_but_does_not_delete_the_project(self) -> None:
        self.client.force_login(self.members[Role.EDITOR])
        self.assertEqual(self.messages("deleteProject", id=self.project.pk), [("PERMISSION", None, "FORBIDDEN")])
        for name, given in self.writes(self.project.pk, self.task.pk)[:-1]:
            with self.subTest(name):
                self.change(name, **given)
        self.assertEqual(
            self.events(), ["project.updated", "task.created", "task.updated", "task.commented", "task.deleted"]
        )

    def test_an_owner_deletes_the_project(self) -> None:
        self.client.force_login(self.members[Role.OWNER])
        self.change("deleteProject", id=self.project.pk)
        self.assertEqual((Project.objects.count(), self.events()), (0, ["project.deleted"]))

    def test_staff_write_everywhere(self) -> None:
        self.client.force_login(UserFactory(is_staff=True))
        for name, given in self.writes(self.project.pk, self.task.pk):
            with self.subTest(name):
                self.change(name, **given)
        self.assertEqual(Project.objects.count(), 0)

    def test_who_makes_a_project_owns_it(self) -> None:
        user = UserFactory()
        self.client.force_login(user)
        pk = self.change("createProject", name="Mine")["id"]
        self.assertEqual(list(Membership.objects.filter(project=pk).values_list("user", "role")), [(user.pk, "owner")])
        self.assertEqual(self.data("{ projects { nodes { id } } }"), {"projects": {"nodes": [{"id": pk}]}})
        self.change("deleteProject", id=pk)

    def test_an_invisible_row_is_refused_like_an_absent_one(self) -> None:
        self.client.force_login(UserFactory())
        for invisible, absent in zip(
            self.writes(self.project.pk, self.task.pk), self.writes(999999, 999999), strict=True
        ):
            with self.subTest(invisible[0]), self.nothing_changes():
                answers = [self.gql(mutation(name), input=given) for name, given in (invisible, absent)]
                self.assertEqual(answers[0], answers[1])
                [message] = answers[0]["data"]["result"]["messages"]
                self.assertEqual(message["code"], "NOT_FOUND")

    def test_an_invisible_row_is_not_given_away_by_its_version(self) -> None:
        self.client.force_login(UserFactory())
        for name, pk in (("updateTask", self.task.pk), ("deleteProject", self.project.pk)):
            self.assertEqual(self.messages(name, id=pk, version=99), [("ERROR", None, "NOT_FOUND")])

    def test_an_assignee_outside_the_project_is_refused_whoever_they_are(self) -> None:
        self.client.force_login(self.members[Role.EDITOR])
        for stranger in (UserFactory(is_staff=True).pk, 999999):
            with self.subTest(stranger):
                refusal = self.messages("updateTask", id=self.task.pk, assigneeId=stranger)
                self.assertEqual(refusal, [("VALIDATION", "assigneeId", "NOT_A_MEMBER")])
