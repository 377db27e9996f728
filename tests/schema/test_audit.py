"""The query `auditLog`."""

from __future__ import annotations

from typing import Any

from backend.projects import audit
from backend.projects.access import SYSTEM, viewer_for
from backend.projects.authentication import viewer_by_token
from backend.projects.models import AuditAction, AuditEntry, Role, Scope, User
from backend.projects.rows import iso
from backend.projects.services.membership import add_member
from backend.projects.services.token import create_token
from tests.cases import token_of
from tests.factories import MembershipFactory, UserFactory
from tests.schema.cases import ClosedCase, OpenCase

LOG = """{ auditLog { totalCount nodes {
  id at action actor { id name } actorTokenId address userId userName projectId detail
} } }"""
PAGES = """query ($first: Int, $after: String, $last: Int, $before: String) {
  auditLog(first: $first, after: $after, last: $last, before: $before) {
    edges { node { id } } pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
  }
}"""


class AuditCase(ClosedCase):
    @classmethod
    def setUpTestData(cls) -> None:
        cls.staff = UserFactory(is_staff=True)
        cls.ada = UserFactory(first_name="Ada", last_name="Lovelace")

    def setUp(self) -> None:
        self.client.force_login(self.staff)

    def record(self, count: int) -> list[str]:
        """Record entries. Returns all ids, newest first."""
        for _ in range(count):
            audit.record(AuditAction.SIGNED_IN, actor=viewer_for(self.ada), user=self.ada)
        return [str(pk) for pk in AuditEntry.objects.order_by("-pk").values_list("pk", flat=True)]


class ReadTests(AuditCase):
    def test_an_entry_shows_the_actor_the_action_the_user_and_the_address(self) -> None:
        User.objects.filter(pk=self.ada.pk).update(is_staff=True)
        owner = MembershipFactory(role=Role.OWNER)
        alice = UserFactory(username="alice", first_name="Alice", last_name="Liddell")
        actor = viewer_by_token(token_of(self.ada), address="203.0.113.7")
        add_member(actor=actor, project_id=owner.project_id, username="alice")
        token, secret = create_token(actor=SYSTEM, user_id=alice.pk, name="laptop", scope="read", days=None)
        log = self.data(LOG)["auditLog"]
        created, added, _ = AuditEntry.objects.order_by("-pk")
        self.assertEqual(
            (log["totalCount"], log["nodes"][:2]),
            (
                3,
                [
                    {
                        "id": str(created.pk),
                        "at": iso(created.at),
                        "action": "TOKEN_CREATED",
                        "actor": None,
                        "actorTokenId": None,
                        "address": "",
                        "userId": str(alice.pk),
                        "userName": "Alice Liddell",
                        "projectId": None,
                        "detail": "laptop (read)",
                    },
                    {
                        "id": str(added.pk),
                        "at": iso(added.at),
                        "action": "MEMBER_ADDED",
                        "actor": {"id": str(self.ada.pk), "name": "Ada Lovelace"},
                        "actorTokenId": str(actor.token_id),
                        "address": "203.0.113.7",
                        "userId": str(alice.pk),
                        "userName": "Alice Liddell",
                        "projectId": str(owner.project_id),
                        "detail": "editor",
                    },
                ],
            ),
        )
        self.assertNotIn(secret, str(log))
        self.assertNotIn(token.digest, str(log))

    def test_every_action_has_its_name(self) -> None:
        for action in AuditAction:
            audit.record(action, actor=SYSTEM)
        nodes = self.data("{ auditLog { nodes { action } } }")["auditLog"]["nodes"]
        self.assertEqual([node["action"] for node in nodes[::-1]], [action.name for action in AuditAction])

    def test_an_entry_outlives_the_users_that_it_names(self) -> None:
        self.record(1)
        self.ada.delete()
        [entry] = self.data("{ auditLog { nodes { actor { name } userName } } }")["auditLog"]["nodes"]
        self.assertEqual(entry, {"actor": {"name": "Ada Lovelace"}, "userName": "Ada Lovelace"})

    def test_the_log_shows_each_new_entry_although_it_takes_no_position(self) -> None:
        for count in range(1, 3):
            self.assertEqual(len(self.record(1)), count)
            self.assertEqual(len(self.data(LOG)["auditLog"]["nodes"]), count)

    def test_twenty_entries_cost_as_many_queries_as_one(self) -> None:
        for count in (1, 19):
            self.record(count)
            with self.assertNumQueries(4):  # the session and its user, the page and the count
                self.data(LOG)


class PageTests(AuditCase):
    def page(self, **arguments: Any) -> tuple[list[str], bool, bool, dict[str, Any]]:
        """Ids, hasPreviousPage, hasNextPage, and the cursors of the neighbouring pages."""
        log = self.data(PAGES, **arguments)["auditLog"]
        info = log["pageInfo"]
        cursors = {"after": info["endCursor"], "before": info["startCursor"]}
        return [edge["node"]["id"] for edge in log["edges"]], info["hasPreviousPage"], info["hasNextPage"], cursors

    def test_pages_are_newest_first_and_walked_in_both_directions(self) -> None:
        ids = self.record(5)
        *first, cursors = self.page(first=2)
        self.assertEqual(first, [ids[:2], False, True])
        *second, cursors = self.page(first=2, after=cursors["after"])
        self.assertEqual(second, [ids[2:4], True, True])
        *third, cursors = self.page(first=2, after=cursors["after"])
        self.assertEqual(third, [ids[4:], True, False])
        *back, _ = self.page(last=2, before=cursors["before"])
        self.assertEqual(back, [ids[2:4], True, True])

    def test_a_cursor_of_another_list_is_refused(self) -> None:
        self.record(1)
        cursor = self.page(first=1)[3]["after"]
        error = self.field_error(f'{{ tokens(after: "{cursor}") {{ totalCount }} }}')
        self.assertEqual(error, {"code": "BAD_USER_INPUT", "argument": "after"})
        token_of(self.staff)
        cursor = self.data("{ tokens { pageInfo { endCursor } } }")["tokens"]["pageInfo"]["endCursor"]
        self.assertEqual(self.field_error(PAGES, after=cursor), {"code": "BAD_USER_INPUT", "argument": "after"})

    def test_invalid_page_arguments_are_refused(self) -> None:
        for arguments, argument in (
            ({"first": 0}, "first"),
            ({"last": 101}, "last"),
            ({"first": 1, "last": 1}, "last"),
            ({"after": "x"}, "after"),
        ):
            with self.subTest(arguments):
                error = self.field_error(PAGES, **arguments)
                self.assertEqual(error, {"code": "BAD_USER_INPUT", "argument": argument})


class AccessTests(AuditCase):
    def test_only_staff_read_the_log(self) -> None:
        self.record(1)
        self.client.force_login(MembershipFactory(user=self.ada, role=Role.OWNER).user)
        for document in (LOG, "{ auditLog { totalCount } }", "{ auditLog { edges { cursor } } }"):
            with self.subTest(document):
                self.assertEqual(self.field_error(document), {"code": "FORBIDDEN"})

    def test_staff_need_a_token_with_admin_scope(self) -> None:
        for scope in Scope:
            with self.subTest(scope):
                result = self.post(LOG, Authorization=f"Bearer {token_of(self.staff, scope)}").json()
                if scope == Scope.ADMIN:
                    self.assertEqual(result["data"]["auditLog"]["totalCount"], 3)
                else:
                    self.assertIsNone(result["data"])
                    self.assertEqual(
                        [error["extensions"] for error in result["errors"]],
                        [{"code": "INSUFFICIENT_SCOPE", "scope": "admin"}],
                    )


class OpenTests(OpenCase):
    def test_an_anonymous_user_reads_the_log_in_open_mode(self) -> None:
        audit.record(AuditAction.SIGNED_IN, actor=SYSTEM)
        self.assertEqual(self.data(LOG)["auditLog"]["totalCount"], 1)
