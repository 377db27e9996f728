"""Access control. An object that a viewer may not see is treated as absent in every query."""

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
        values = {"input": {"name": "Garden"}}
        with self.nothing_changes():
            self.assert_sign_in_first(self.post("{ cursor }"))
            self.assert_sign_in_first(self.post("{ me { name } }"))
            self.assert_sign_in_first(self.post("{ __schema { types { name } } }"))
            self.assert_sign_in_first(self.post("this is no GraphQL"))
            self.assert_sign_in_first(self.post(mutation("createProject"), values))
            self.assert_sign_in_first(self.client.get("/graphql/", {"query": "{ cursor }"}))

    def test_a_browser_is_redirected_to_the_sign_in_page_with_next(self) -> None:
        response = self.client.get("/graphql/", headers={"Accept": "text/html,*/*;q=0.8"})
        self.assertEqual((response.status_code, response["Location"]), (302, "/accounts/sign-in/?next=/graphql/"))

    def test_a_deactivated_account_is_anonymous(self) -> None:
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

    def test_the_csrf_token_of_the_graphiql_page_is_accepted(self) -> None:
        self.assertEqual(self.client.get("/graphql/", headers={"Accept": "text/html"}).status_code, 200)
        token = self.client.cookies["csrftoken"].value
        response = self.post(mutation("createProject"), {"input": {"name": "Mine"}}, X_CSRFToken=token)
        self.assertEqual(response.status_code, 200)
        self.assertEqual(response.json()["data"]["result"]["name"], "Mine")

    def test_a_get_needs_no_csrf_token(self) -> None:
        response = self.client.get("/graphql/", {"query": "{ projects { totalCount } }"})
        self.assertEqual(response.json()["data"], {"projects": {"totalCount": 1}})


class OpenTests(OpenCase):
    def test_an_anonymous_user_needs_no_csrf_token(self) -> None:
        self.client = Client(enforce_csrf_checks=True)
        self.assertEqual(self.change("createProject", name="Garden")["name"], "Garden")

    def test_a_project_created_anonymously_has_no_members(self) -> None:
        self.change("createProject", name="Garden")
        self.assertEqual(Membership.objects.count(), 0)


class VisibilityTests(ClosedCase):
    """A member of one of two projects with the same contents."""

    @classmethod
    def setUpTestData(cls) -> None:
        cls.ada = UserFactory()
        cls.mine, cls.other = (ProjectFactory(name=f"Garden {n}") for n in "AB")
        MembershipFactory(user=cls.ada, project=cls.mine, role=Role.VIEWER)
        MembershipFactory(project=cls.other, role=Role.OWNER)
        cls.my_task, cls.other_task = (TaskFactory(project=project, title="Weed") for project in (cls.mine, cls.other))
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

    def test_an_invisible_object_is_null_like_an_absent_one(self) -> None:
        for field, invisible in (
            ("project", self.other.pk),
            ("task", self.other_task.pk),
            ("report", self.other_report.pk),
        ):
            with self.subTest(field):
                document = f"query ($id: ID!) {{ {field}(id: $id) {{ id }} }}"
                self.assertEqual(self.gql(document, id=invisible), {"data": {field: None}})
                self.assertEqual(self.gql(document, id=999999), {"data": {field: None}})

    def test_lists_counts_and_search_contain_visible_rows_only(self) -> None:
        for field, mine in (
            ("projects", self.mine.pk),
            ("tasks", self.my_task.pk),
            ("reports", self.my_report.pk),
            ('projects(filter: {search: "Garden"})', self.mine.pk),
            ('tasks(filter: {search: "Weed"})', self.my_task.pk),
            ("tasks(order: {field: DUE_DATE}, last: 5)", self.my_task.pk),
        ):
            with self.subTest(field):
                [connection] = self.data(
                    f"{{ {field} {{ totalCount nodes {{ id }} edges {{ node {{ id }} }} }} }}"
                ).values()
                row = {"id": str(mine)}
                self.assertEqual(connection, {"totalCount": 1, "nodes": [row], "edges": [{"node": row}]})

    def test_a_list_filtered_by_an_invisible_project_is_empty(self) -> None:
        for project_id in (self.other.pk, 999999):
            for field in (f"tasks(filter: {{projectId: {project_id}}})", f"reports(projectId: {project_id})"):
                with self.subTest(field):
                    [connection] = self.data(f"{{ {field} {{ totalCount nodes {{ id }} }} }}").values()
                    self.assertEqual(connection, {"totalCount": 0, "nodes": []})

    def test_a_list_cached_for_staff_is_not_served_to_a_member(self) -> None:
        document = f"{{ tasks(filter: {{projectId: {self.other.pk}}}) {{ nodes {{ id }} }} projects {{ totalCount }} }}"
        self.client.force_login(UserFactory(is_staff=True))
        seen_by_staff = {"tasks": {"nodes": [{"id": str(self.other_task.pk)}]}, "projects": {"totalCount": 2}}
        self.assertEqual(self.data(document), seen_by_staff)
        self.client.force_login(self.ada)
        self.assertEqual(self.data(document), {"tasks": {"nodes": []}, "projects": {"totalCount": 1}})

    def test_events_are_those_of_visible_projects(self) -> None:
        document = """query ($project: ID) {
          events(after: "0", projectId: $project) { nodes { projectId } cursor hasMore }
        }"""
        mine = [{"projectId": str(self.mine.pk)}]
        for project_id, nodes in ((None, mine), (self.mine.pk, mine), (self.other.pk, []), (999999, [])):
            with self.subTest(project_id):
                page = self.data(document, project=project_id)["events"]
                self.assertEqual(page, {"nodes": nodes, "cursor": "2", "hasMore": False})

    def projects_of_events(self) -> list[str]:
        """The project id of each visible event."""
        document = '{ events(after: "0") { nodes { projectId } } }'
        return [event["projectId"] for event in self.data(document)["events"]["nodes"]]

    def test_a_new_member_reads_all_retained_events_and_a_former_one_none(self) -> None:
        add_member(actor=SYSTEM, project_id=self.other.pk, username=self.ada.username, role=Role.VIEWER)
        self.assertEqual(self.projects_of_events(), [str(self.mine.pk), str(self.other.pk)])
        remove_member(actor=SYSTEM, project_id=self.mine.pk, user_id=self.ada.pk)
        self.assertEqual(self.projects_of_events(), [str(self.other.pk)])

    def test_the_deletion_of_a_project_is_visible_to_its_members(self) -> None:
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
        for name, values in self.writes(self.project.pk, self.task.pk):
            with self.subTest(name):
                self.assertEqual(self.messages(name, **values), [("PERMISSION", None, "FORBIDDEN")])

    def test_an_editor_writes_but_does_not_delete_the_project(self) -> None:
        self.client.force_login(self.members[Role.EDITOR])
        self.assertEqual(self.messages("deleteProject", id=self.project.pk), [("PERMISSION", None, "FORBIDDEN")])
        for name, values in self.writes(self.project.pk, self.task.pk)[:-1]:
            with self.subTest(name):
                self.change(name, **values)
        self.assertEqual(
            self.events(), ["project.updated", "task.created", "task.updated", "task.commented", "task.deleted"]
        )

    def test_an_owner_deletes_the_project(self) -> None:
        self.client.force_login(self.members[Role.OWNER])
        self.change("deleteProject", id=self.project.pk)
        self.assertEqual((Project.objects.count(), self.events()), (0, ["project.deleted"]))

    def test_staff_write_everywhere(self) -> None:
        self.client.force_login(UserFactory(is_staff=True))
        for name, values in self.writes(self.project.pk, self.task.pk):
            with self.subTest(name):
                self.change(name, **values)
        self.assertEqual(Project.objects.count(), 0)

    def test_the_creator_of_a_project_owns_it(self) -> None:
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
                results = [self.gql(mutation(name), input=values) for name, values in (invisible, absent)]
                self.assertEqual(results[0], results[1])
                [message] = results[0]["data"]["result"]["messages"]
                self.assertEqual(message["code"], "NOT_FOUND")

    def test_a_version_does_not_reveal_an_invisible_row(self) -> None:
        self.client.force_login(UserFactory())
        for name, pk in (("updateTask", self.task.pk), ("deleteProject", self.project.pk)):
            self.assertEqual(self.messages(name, id=pk, version=99), [("ERROR", None, "NOT_FOUND")])

    def test_an_assignee_outside_the_project_is_refused(self) -> None:
        self.client.force_login(self.members[Role.EDITOR])
        for stranger in (UserFactory(is_staff=True).pk, 999999):
            with self.subTest(stranger):
                refusal = self.messages("updateTask", id=self.task.pk, assigneeId=stranger)
                self.assertEqual(refusal, [("VALIDATION", "assigneeId", "NOT_A_MEMBER")])
