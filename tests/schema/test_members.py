"""Members of a project: reading, adding, changing and removing them."""

from __future__ import annotations

from typing import Any

from backend.projects.models import AuditEntry, Membership, Role, Task, User
from tests.factories import MembershipFactory, TaskFactory, UserFactory
from tests.schema.cases import ABSENT_IDS, MembershipCase, OpenCase, member_mutation

# No user has one of these names. Some of them are not valid in a query.
UNKNOWN_NAMES = ["nobody", "", " ", "alice\x00", "\x00", "alice\ud800", "\ud800", "x" * 10_000, "alice ", "al%"]

READ = "query ($id: ID!) { project(id: $id) { members { totalCount nodes { user { id name } role } } } }"


class MemberCase(MembershipCase):
    """Alice is in another project, the kitchen."""

    @classmethod
    def setUpTestData(cls) -> None:
        super().setUpTestData()
        cls.kitchen = MembershipFactory(user=cls.alice, role=Role.OWNER).project

    def mutate(self, name: str, input: dict[str, Any]) -> dict[str, Any]:
        return super().mutate(name, {"projectId": self.garden.pk, **input})

    def member(self, name: str, **input: Any) -> tuple[str, str, str]:
        """Id, name and role of the member that a mutation returns."""
        result = self.mutate(name, input)
        self.assertEqual(result["__typename"], "Member", result)
        return result["user"]["id"], result["user"]["name"], result["role"]

    def roles(self) -> list[tuple[str, str]]:
        """Name and role of each member in the API, newest first."""
        [members] = self.data(READ, id=self.garden.pk)["project"].values()
        self.assertEqual(members["totalCount"], len(members["nodes"]))
        return [(member["user"]["name"], member["role"]) for member in members["nodes"]]


class ReadTests(MemberCase):
    def test_members_are_listed_newest_first(self) -> None:
        self.assertEqual(
            self.data(READ, id=self.garden.pk)["project"]["members"],
            {
                "totalCount": 3,
                "nodes": [
                    {"user": {"id": str(self.viewer.pk), "name": self.viewer.username}, "role": "VIEWER"},
                    {"user": {"id": str(self.editor.pk), "name": self.editor.username}, "role": "EDITOR"},
                    {"user": {"id": str(self.owner.pk), "name": self.owner.username}, "role": "OWNER"},
                ],
            },
        )

    def test_every_member_sees_the_others_and_a_non_member_does_not_see_the_project(self) -> None:
        for user in (self.editor, self.viewer, UserFactory(is_staff=True)):
            self.client.force_login(user)
            self.assertEqual(len(self.roles()), 3)
        self.client.force_login(self.alice)
        self.assertEqual(self.data(READ, id=self.garden.pk), {"project": None})

    def test_each_project_of_a_list_shows_its_own_members(self) -> None:
        MembershipFactory(user=self.owner, project=self.kitchen, role=Role.VIEWER)
        document = "{ projects { nodes { name members { nodes { user { name } } } } } }"
        self.assertEqual(
            [
                (project["name"], [member["user"]["name"] for member in project["members"]["nodes"]])
                for project in self.data(document)["projects"]["nodes"]
            ],
            [
                (self.kitchen.name, [self.owner.username, "Alice Liddell"]),
                ("Garden", [self.viewer.username, self.editor.username, self.owner.username]),
            ],
        )

    def test_the_creator_of_a_project_is_its_only_member(self) -> None:
        made = self.data(
            """mutation { createProject(input: {name: "Attic"}) {
              ... on Project { members { totalCount nodes { user { name } role } } }
            } }"""
        )
        members = {"totalCount": 1, "nodes": [{"user": {"name": self.owner.username}, "role": "OWNER"}]}
        self.assertEqual(made, {"createProject": {"members": members}})


class PageTests(MemberCase):
    def page(self, arguments: str = "") -> tuple[list[str], bool, bool, list[str]]:
        """Ids of the members, hasPreviousPage, hasNextPage, and the cursors of the rows."""
        document = f"""{{ project(id: {self.garden.pk}) {{ members{arguments} {{
          edges {{ cursor node {{ user {{ id }} }} }} nodes {{ user {{ id }} }}
          pageInfo {{ hasNextPage hasPreviousPage startCursor endCursor }}
        }} }} }}"""
        members = self.data(document)["project"]["members"]
        info, nodes = members["pageInfo"], members["nodes"]
        cursors = [edge["cursor"] for edge in members["edges"]]
        self.assertEqual(nodes, [edge["node"] for edge in members["edges"]])
        self.assertEqual((info["startCursor"], info["endCursor"]), (cursors[0], cursors[-1]))
        return [node["user"]["id"] for node in nodes], info["hasPreviousPage"], info["hasNextPage"], cursors

    def test_pages_are_newest_first_and_walked_in_both_directions(self) -> None:
        viewer, editor, owner = (str(user.pk) for user in (self.viewer, self.editor, self.owner))
        *whole, cursors = self.page()
        self.assertEqual(whole, [[viewer, editor, owner], False, False])
        for arguments, expected in (
            ("(first: 2)", [[viewer, editor], False, True]),
            (f'(first: 2, after: "{cursors[1]}")', [[owner], True, False]),
            ("(last: 2)", [[editor, owner], True, False]),
            (f'(last: 2, before: "{cursors[1]}")', [[viewer], False, True]),
            (f'(after: "{cursors[0]}", before: "{cursors[2]}")', [[editor], True, True]),
        ):
            with self.subTest(arguments):
                *page, _ = self.page(arguments)
                self.assertEqual(page, expected)

    def test_a_page_has_50_members_by_default_and_100_at_most(self) -> None:
        MembershipFactory.create_batch(100, project=self.garden)
        for arguments, size in (("", 50), ("(first: 100)", 100), ("(last: 100)", 100)):
            with self.subTest(arguments):
                self.assertEqual(len(self.page(arguments)[0]), size)

    def test_invalid_page_arguments_are_refused(self) -> None:
        TaskFactory(project=self.garden)
        of_tasks = self.data("{ tasks { edges { cursor } } }")["tasks"]["edges"][0]["cursor"]
        for arguments, argument in (
            ("first: 0", "first"),
            ("last: 101", "last"),
            ("first: 1, last: 1", "last"),
            ('after: "x"', "after"),
            (f'after: "{of_tasks}"', "after"),
            (f'before: "{of_tasks}"', "before"),
        ):
            with self.subTest(arguments):
                document = f"{{ project(id: {self.garden.pk}) {{ members({arguments}) {{ totalCount }} }} }}"
                [error] = self.gql(document)["errors"]
                self.assertEqual(error["extensions"], {"code": "BAD_USER_INPUT", "argument": argument})


class AddTests(MemberCase):
    def setUp(self) -> None:
        self.staff = UserFactory(is_staff=True)
        self.client.force_login(self.staff)

    def test_an_owner_who_is_not_staff_may_not_add_a_member_without_an_invitation(self) -> None:
        self.client.force_login(self.owner)
        for username in ("alice", "nobody", self.viewer.username):
            self.assert_refused("addMember", {"username": username}, "PERMISSION", None, "FORBIDDEN")

    def test_staff_add_a_member_as_an_editor_by_default(self) -> None:
        self.assertEqual(self.member("addMember", username="alice"), (str(self.alice.pk), "Alice Liddell", "EDITOR"))
        self.assertEqual(self.roles()[0], ("Alice Liddell", "EDITOR"))

    def test_a_member_may_be_added_in_any_role_and_by_a_name_in_any_case(self) -> None:
        for role in ("OWNER", "EDITOR", "VIEWER"):
            user = UserFactory()
            added = self.member("addMember", username=user.username.upper(), role=role)
            self.assertEqual(added, (str(user.pk), user.username, role))

    def test_an_unknown_name_is_refused(self) -> None:
        for username in UNKNOWN_NAMES:
            self.assert_refused("addMember", {"username": username}, "VALIDATION", "username", "NOT_FOUND")

    def test_a_member_is_not_added_again(self) -> None:
        for member in (self.owner, self.viewer):
            self.assert_refused(
                "addMember", {"username": member.username}, "VALIDATION", "username", "ALREADY_A_MEMBER"
            )

    def test_a_new_member_sees_the_project_at_once(self) -> None:
        self.client.force_login(self.alice)
        names = "{ projects { nodes { name } } }"
        kitchen = {"name": self.kitchen.name}
        self.assertEqual(self.data(names), {"projects": {"nodes": [kitchen]}})
        self.client.force_login(self.staff)
        with self.committed():
            self.member("addMember", username="alice", role="VIEWER")
        self.client.force_login(self.alice)
        self.assertEqual(self.data(names), {"projects": {"nodes": [kitchen, {"name": "Garden"}]}})


class ChangeTests(MemberCase):
    def test_an_owner_changes_the_role_of_a_member(self) -> None:
        changed = self.member("changeRole", userId=self.editor.pk, role="VIEWER")
        self.assertEqual(changed, (str(self.editor.pk), self.editor.username, "VIEWER"))
        self.assertEqual(self.roles()[1], (self.editor.username, "VIEWER"))

    def test_the_role_of_the_last_owner_cannot_be_changed(self) -> None:
        for role in ("EDITOR", "VIEWER"):
            self.assert_refused("changeRole", {"userId": self.owner.pk, "role": role}, "VALIDATION", None, "LAST_OWNER")

    def test_the_role_of_a_non_member_cannot_be_changed(self) -> None:
        for absent in [*ABSENT_IDS, str(self.alice.pk)]:
            self.assert_refused("changeRole", {"userId": absent, "role": "VIEWER"}, "ERROR", None, "NOT_FOUND")

    def test_an_unknown_role_is_not_executed(self) -> None:
        for role in ("BOSS", "owner", "", 1, None):
            with self.subTest(role), self.nothing_changes():
                for name, chosen in (("changeRole", {"userId": self.editor.pk}), ("addMember", {"username": "alice"})):
                    values = {"projectId": self.garden.pk, **chosen, "role": role}
                    code = self.request_error_code(member_mutation(name), input=values)
                    self.assertEqual(code, "GRAPHQL_VALIDATION_FAILED")


class RemoveTests(MemberCase):
    def test_removing_a_member_returns_it_as_it_was(self) -> None:
        TaskFactory(project=self.garden, assignee=self.editor)
        with self.committed():
            removed = self.member("removeMember", userId=self.editor.pk)
        self.assertEqual(removed, (str(self.editor.pk), self.editor.username, "EDITOR"))
        self.assertEqual(len(self.roles()), 2)
        self.assertEqual((Task.objects.get().assignee, self.events()), (None, ["task.updated"]))

    def test_a_member_who_leaves_no_longer_sees_the_project(self) -> None:
        for member in (self.editor, self.viewer):
            self.client.force_login(member)
            self.assertEqual(len(self.data("{ projects { nodes { name } } }")["projects"]["nodes"]), 1)
            with self.committed():
                self.member("removeMember", userId=member.pk)
            self.assertEqual(self.data("{ projects { nodes { name } } }"), {"projects": {"nodes": []}})

    def test_the_last_owner_cannot_leave(self) -> None:
        self.assert_refused("removeMember", {"userId": self.owner.pk}, "VALIDATION", None, "LAST_OWNER")

    def test_a_non_member_cannot_be_removed(self) -> None:
        for absent in [*ABSENT_IDS, str(self.alice.pk)]:
            self.assert_refused("removeMember", {"userId": absent}, "ERROR", None, "NOT_FOUND")


class AccessTests(MemberCase):
    def changes(self) -> list[tuple[str, dict[str, Any]]]:
        return [
            ("addMember", {"username": "alice"}),
            ("changeRole", {"userId": self.viewer.pk, "role": "EDITOR"}),
            ("removeMember", {"userId": self.viewer.pk}),
        ]

    def test_an_editor_may_not_manage_members(self) -> None:
        self.client.force_login(self.editor)
        for name, values in self.changes():
            self.assert_refused(name, values, "PERMISSION", None, "FORBIDDEN")

    def test_a_viewer_may_not_manage_other_members(self) -> None:
        self.client.force_login(self.viewer)
        for name, values in self.changes()[:2]:
            self.assert_refused(name, values, "PERMISSION", None, "FORBIDDEN")
        self.assert_refused("removeMember", {"userId": self.editor.pk}, "PERMISSION", None, "FORBIDDEN")

    def test_staff_manage_the_members_of_every_project(self) -> None:
        self.client.force_login(UserFactory(is_staff=True))
        for name, values in self.changes():
            self.member(name, **values)
        self.assertEqual(
            self.roles(),
            [("Alice Liddell", "EDITOR"), (self.editor.username, "EDITOR"), (self.owner.username, "OWNER")],
        )

    def test_an_invisible_project_is_refused_like_an_absent_one(self) -> None:
        for project_id in [*ABSENT_IDS, str(self.kitchen.pk)]:
            for name, values in self.changes():
                self.assert_refused(name, {**values, "projectId": project_id}, "ERROR", None, "NOT_FOUND")

    def test_each_change_is_recorded_in_the_audit_log_with_its_actor(self) -> None:
        staff = UserFactory(is_staff=True)
        self.client.force_login(staff)
        for name, values in self.changes():
            self.member(name, **values)
        self.assertEqual(
            list(AuditEntry.objects.order_by("pk").values_list("action", "actor_id", "address", "user_id", "detail")),
            [
                ("member_added", staff.pk, "127.0.0.1", self.alice.pk, "editor"),
                ("role_changed", staff.pk, "127.0.0.1", self.viewer.pk, "viewer to editor"),
                ("member_removed", staff.pk, "127.0.0.1", self.viewer.pk, "editor"),
            ],
        )

    def test_a_required_field_may_not_be_absent_or_null(self) -> None:
        for name, values in self.changes():
            valid: dict[str, Any] = {"projectId": self.garden.pk, **values}
            for field in valid:
                for bad in ({**valid, field: None}, {key: valid[key] for key in valid if key != field}):
                    with self.subTest(name, input=bad), self.nothing_changes():
                        code = self.request_error_code(member_mutation(name), input=bad)
                        self.assertEqual(code, "GRAPHQL_VALIDATION_FAILED")


class OpenTests(OpenCase):
    def test_an_anonymous_user_manages_members_in_open_mode_but_not_the_last_owner(self) -> None:
        owner = MembershipFactory(role=Role.OWNER)
        UserFactory(username="alice")
        values = {"projectId": owner.project_id, "username": "alice", "role": "VIEWER"}
        self.assertEqual(self.data(member_mutation("addMember"), input=values)["result"]["role"], "VIEWER")
        values = {"projectId": owner.project_id, "userId": owner.user_id}
        result = self.data(member_mutation("removeMember"), input=values)["result"]
        self.assertEqual(result["messages"], [{"kind": "VALIDATION", "field": None, "code": "LAST_OWNER"}])
        self.assertEqual((Membership.objects.count(), User.objects.count()), (2, 2))
