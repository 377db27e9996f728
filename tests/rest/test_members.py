"""`/projects/<id>/members/` and `/projects/<id>/members/<user id>/`."""

from __future__ import annotations

from typing import Any

from backend.projects.access import SYSTEM
from backend.projects.models import Membership, Role, Task
from backend.projects.services.user import save_user
from tests.factories import MembershipFactory, ProjectFactory, TaskFactory, UserFactory, create_member_of_each_role
from tests.rest.cases import ABSENT_IDS, ClosedCase, OpenCase


class MemberCase(ClosedCase):
    """A project with a member of each role, and Alice, who is in another project."""

    @classmethod
    def setUpTestData(cls) -> None:
        cls.project = ProjectFactory()
        cls.owner, cls.editor, cls.viewer = create_member_of_each_role(cls.project)
        cls.alice = UserFactory(username="alice", first_name="Alice", last_name="Liddell")
        cls.elsewhere = MembershipFactory(user=cls.alice, role=Role.OWNER).project
        cls.path = f"/projects/{cls.project.pk}/members/"

    def setUp(self) -> None:
        self.client.force_login(self.owner)

    def path_of(self, user: Any) -> str:
        return f"{self.path}{user.pk}/"

    def listed(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.client.get(self.path).json()
        return rows


def member_json(user: Any, role: str) -> dict[str, Any]:
    return {"user": user.pk, "name": user.display_name, "role": role}


class ListMembersTest(MemberCase):
    def test_the_members_of_one_project_come_newest_first(self) -> None:
        response = self.client.get(self.path, {"count": 1})
        self.assertEqual(
            response.json(),
            [
                member_json(self.viewer, "viewer"),
                member_json(self.editor, "editor"),
                member_json(self.owner, "owner"),
            ],
        )
        self.assertEqual(list(response.json()[0]), ["user", "name", "role"])
        self.assertEqual((response["X-Total-Count"], response["X-Cursor"]), ("3", "0"))

    def test_all_pages_together_contain_every_member_once(self) -> None:
        pages, path = [], f"{self.path}?page_size=2"
        while path:
            response = self.client.get(path)
            pages.append([row["user"] for row in response.json()])
            path = self.next_page(response)
        self.assertEqual(pages, [[self.viewer.pk, self.editor.pk], [self.owner.pk]])

    def test_a_cursor_of_the_members_of_another_project_is_refused(self) -> None:
        MembershipFactory(project=self.elsewhere, user=self.owner)
        link = self.next_page(self.client.get(f"{self.path}?page_size=1"))
        elsewhere = link.replace(f"/{self.project.pk}/", f"/{self.elsewhere.pk}/")
        self.assert_refused(self.client.get(elsewhere), 400, "cursor")

    def test_the_refusal_of_a_bad_parameter_names_it(self) -> None:
        for query, field in [("role=owner", "role"), ("page_size=0", "page_size"), ("count=", "count")]:
            with self.subTest(query):
                self.assert_refused(self.client.get(f"{self.path}?{query}"), 400, field)

    def test_a_list_is_a_304_until_a_member_changes(self) -> None:
        before = self.listed()
        self.client.force_login(UserFactory(is_staff=True))

        def assert_changed(write: Any, *, to: list[dict[str, Any]]) -> None:
            etag = self.client.get(self.path)["ETag"]
            self.assertEqual(self.client.get(self.path, headers={"If-None-Match": etag}).status_code, 304)
            with self.committed():
                write()
            again = self.client.get(self.path, headers={"If-None-Match": etag})
            self.assertEqual((again.status_code, again.json()), (200, to))

        alice = self.path_of(self.alice)
        added = member_json(self.alice, "editor")
        assert_changed(lambda: self.send("POST", self.path, {"username": "alice"}), to=[added, *before])
        changed = {**added, "role": "viewer"}
        assert_changed(lambda: self.send("PATCH", alice, {"role": "viewer"}), to=[changed, *before])
        self.alice.last_name = "Pleasance"
        renamed = {**changed, "name": "Alice Pleasance"}
        assert_changed(lambda: save_user(actor=SYSTEM, user=self.alice), to=[renamed, *before])
        assert_changed(lambda: self.send("DELETE", alice), to=before)

    def test_twenty_members_cost_as_many_queries_as_one(self) -> None:
        self.client.get(self.path)  # makes the tag versions known
        queries = 5  # the session, its user, the project, the page, and the access check after it
        with self.assertNumQueries(queries):
            self.client.get(f"{self.path}?page_size=1")
        MembershipFactory.create_batch(20, project=self.project)
        with self.assertNumQueries(queries):
            self.client.get(f"{self.path}?page_size=20")


class AddMemberTest(MemberCase):
    def setUp(self) -> None:
        self.client.force_login(UserFactory(is_staff=True))

    def test_an_owner_must_invite_a_user_instead_of_adding_them(self) -> None:
        self.client.force_login(self.owner)
        for username in ("alice", "nobody", self.editor.username):
            with self.subTest(username), self.nothing_changes():
                response = self.send("POST", self.path, {"username": username})
                self.assert_refused(response, 403, "detail")
                self.assertIn("/invitations/", response.json()["detail"])

    def test_staff_add_a_member_as_an_editor_by_default(self) -> None:
        response = self.send("POST", self.path, {"username": "alice"})
        added = {"user": self.alice.pk, "name": "Alice Liddell", "role": "editor"}
        self.assertEqual((response.status_code, response.json()), (201, added))
        self.assertEqual(response["Location"], self.path_of(self.alice))
        self.assertEqual(self.client.get(response["Location"]).json(), added)
        self.assertEqual(self.events(), [])

    def test_a_member_may_be_added_in_any_role_and_by_a_name_in_any_case(self) -> None:
        for role in Role.values:
            user = UserFactory()
            response = self.send("POST", self.path, {"username": user.username.upper(), "role": role})
            self.assertEqual((response.status_code, response.json()), (201, member_json(user, role)))

    def test_the_refusal_of_a_bad_field_names_it(self) -> None:
        bad: list[tuple[str, Any]] = [
            ("username", None),
            ("username", ""),
            ("username", "nobody"),
            ("username", "alice\x00"),
            ("username", "x" * 10_000),
            ("username", " alice"),
            ("username", 5),
            ("username", self.editor.username),
            ("role", None),
            ("role", ""),
            ("role", "boss"),
            ("role", "OWNER"),
            ("role", 1),
            ("role", ["owner"]),
        ]
        for name, value in bad:
            with self.subTest(name=name, value=str(value)[:20]), self.nothing_changes():
                response = self.send("POST", self.path, {"username": "alice", name: value})
                self.assert_refused(response, 400, name)

    def test_the_refusal_of_a_missing_field_names_it(self) -> None:
        with self.nothing_changes():
            self.assert_refused(self.send("POST", self.path, {"role": "editor"}), 400, "username")

    def test_a_lone_surrogate_is_not_json(self) -> None:
        with self.nothing_changes():
            self.assert_refused(self.send("POST", self.path, b'{"username": "\\ud800"}'), 400, "detail")

    def test_adding_a_member_twice_is_refused(self) -> None:
        response = self.send("POST", self.path, {"username": self.editor.username, "role": "owner"})
        self.assertEqual(response.json(), {"username": ["This user is already a member."]})


class MemberTest(MemberCase):
    def test_a_member_is_returned_with_the_position(self) -> None:
        response = self.client.get(self.path_of(self.editor))
        self.assertEqual((response.status_code, response.json()), (200, member_json(self.editor, "editor")))
        self.assertEqual(response["X-Cursor"], "0")

    def test_an_owner_changes_the_role_of_a_member(self) -> None:
        for method, role in (("PUT", "viewer"), ("PATCH", "owner")):
            response = self.send(method, self.path_of(self.editor), {"role": role})
            self.assertEqual((response.status_code, response.json()), (200, member_json(self.editor, role)))
            self.assertEqual(self.client.get(self.path_of(self.editor)).json()["role"], role)

    def test_an_empty_patch_changes_nothing(self) -> None:
        with self.nothing_changes():
            response = self.send("PATCH", self.path_of(self.editor), {})
        self.assertEqual((response.status_code, response.json()), (200, member_json(self.editor, "editor")))

    def test_a_put_requires_a_role(self) -> None:
        with self.nothing_changes():
            self.assert_refused(self.send("PUT", self.path_of(self.editor), {}), 400, "role")

    def test_an_unknown_role_is_refused(self) -> None:
        for method in ("PUT", "PATCH"):
            for role in (None, "", "boss", "Owner", 1, ["owner"]):
                with self.subTest(method, role=role), self.nothing_changes():
                    response = self.send(method, self.path_of(self.editor), {"role": role})
                    self.assert_refused(response, 400, "role")

    def test_the_tasks_of_a_removed_member_become_unassigned(self) -> None:
        TaskFactory(project=self.project, assignee=self.editor)
        response = self.send("DELETE", self.path_of(self.editor))
        self.assertEqual((response.status_code, response.content), (204, b""))
        self.assertEqual(self.client.get(self.path_of(self.editor)).status_code, 404)
        self.assertEqual((Task.objects.get().assignee, self.events()), (None, ["task.updated"]))

    def test_the_last_owner_can_neither_leave_nor_change_their_role(self) -> None:
        for method, body in (("DELETE", {}), ("PUT", {"role": "editor"}), ("PATCH", {"role": "viewer"})):
            with self.subTest(method), self.nothing_changes():
                response = self.send(method, self.path_of(self.owner), body)
                self.assert_refused(response, 400, "non_field_errors")

    def test_a_non_member_is_not_found(self) -> None:
        for absent in [*ABSENT_IDS, self.alice.pk]:
            for method in ("GET", "PUT", "PATCH", "DELETE"):
                with self.subTest(user=absent, method=method), self.nothing_changes():
                    response = self.send(method, f"{self.path}{absent}/", {"role": "viewer"})
                    self.assert_refused(response, 404, "detail")

    def test_other_methods_are_refused(self) -> None:
        self.assertEqual(
            self.send("POST", self.path_of(self.editor))["Allow"], "GET, PUT, PATCH, DELETE, HEAD, OPTIONS"
        )
        self.assertEqual(self.send("DELETE", self.path)["Allow"], "GET, POST, HEAD, OPTIONS")


class MemberAccessTest(MemberCase):
    def requests(self, project_id: Any) -> list[tuple[str, str, dict[str, Any]]]:
        members = f"/projects/{project_id}/members/"
        member = f"{members}{self.viewer.pk}/"
        return [
            ("POST", members, {"username": "alice"}),
            ("PUT", member, {"role": "editor"}),
            ("PATCH", member, {"role": "editor"}),
            ("DELETE", member, {}),
            ("GET", members, {}),
            ("GET", member, {}),
        ]

    def test_an_anonymous_request_is_a_401(self) -> None:
        self.client.logout()
        for method, path, body in self.requests(self.project.pk):
            with self.subTest(method, path=path), self.nothing_changes():
                self.assert_refused(self.send(method, path, body), 401)

    def test_the_response_for_an_invisible_project_is_that_for_an_absent_one(self) -> None:
        self.client.force_login(self.alice)
        for method, path, body in self.requests(self.project.pk):
            for absent in ABSENT_IDS:
                with self.subTest(method, path=path, id=absent), self.nothing_changes():
                    invisible = self.send(method, path, body)
                    absent_project = self.send(method, path.replace(f"/{self.project.pk}/", f"/{absent}/", 1), body)
                    self.assert_refused(invisible, 404, "detail")
                    self.assertEqual(absent_project.status_code, invisible.status_code)
                    self.assertEqual(absent_project.content, invisible.content)

    def test_editors_and_viewers_may_read_but_not_manage_members(self) -> None:
        for user in (self.editor, self.viewer):
            self.client.force_login(user)
            for method, path, body in self.requests(self.project.pk):
                if (method, user) == ("DELETE", self.viewer):
                    continue  # a member may leave
                with self.subTest(method, path=path), self.nothing_changes():
                    response = self.send(method, path, body)
                    self.assertEqual(response.status_code, 200 if method == "GET" else 403)

    def test_editors_and_viewers_may_leave(self) -> None:
        for user in (self.editor, self.viewer):
            self.client.force_login(user)
            self.assertEqual(self.send("DELETE", self.path_of(user)).status_code, 204)
            self.assertEqual(self.client.get(self.path).status_code, 404)

    def test_staff_may_manage_the_members_of_any_project(self) -> None:
        self.client.force_login(UserFactory(is_staff=True))
        statuses = [self.send(*request).status_code for request in self.requests(self.project.pk)]
        self.assertEqual(statuses, [201, 200, 200, 204, 200, 404])


class OpenMemberTest(OpenCase):
    def test_an_anonymous_user_may_manage_members_in_open_mode(self) -> None:
        owner = MembershipFactory(role=Role.OWNER)
        UserFactory(username="alice")
        response = self.send("POST", f"/projects/{owner.project_id}/members/", {"username": "alice"})
        self.assertEqual(response.status_code, 201)
        self.assertEqual(self.send("DELETE", response["Location"]).status_code, 204)
        self.assertEqual(list(Membership.objects.all()), [owner])
