"""Invitations: inviting, listing, accepting, declining and cancelling."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.utils import timezone

from backend.projects.models import Invitation, Membership
from tests.factories import InvitationFactory
from tests.schema.cases import ABSENT_IDS, MEMBER, MembershipCase, member_mutation

FIELDS = "id projectId projectName role user { id name } invitedBy { id name } createdAt expiresAt"


class InvitationCase(MembershipCase):
    @staticmethod
    def document(name: str) -> str:
        return member_mutation(name, MEMBER if name == "acceptInvitation" else f"Invitation {{ {FIELDS} }}")

    def invite(self, **input: Any) -> dict[str, Any]:
        return self.mutate("inviteMember", {"projectId": self.garden.pk, "username": "alice", **input})


class InviteTests(InvitationCase):
    def test_an_owner_invites_and_the_invited_user_accepts(self) -> None:
        invited = self.invite(username="ALICE", role="VIEWER")
        self.assertEqual(
            invited,
            {
                "__typename": "Invitation",
                "id": str(Invitation.objects.get().pk),
                "projectId": str(self.garden.pk),
                "projectName": "Garden",
                "role": "VIEWER",
                "user": {"id": str(self.alice.pk), "name": "Alice Liddell"},
                "invitedBy": {"id": str(self.owner.pk), "name": self.owner.username},
                "createdAt": invited["createdAt"],
                "expiresAt": invited["expiresAt"],
            },
        )
        self.client.force_login(self.alice)
        self.assertEqual(self.data("{ projects { totalCount } }")["projects"]["totalCount"], 0)
        listed = self.data(f"{{ invitations {{ totalCount nodes {{ __typename {FIELDS} }} }} }}")["invitations"]
        self.assertEqual(listed, {"totalCount": 1, "nodes": [invited]})
        with self.committed():
            joined = self.mutate("acceptInvitation", {"id": invited["id"]})
        member = {"user": {"id": str(self.alice.pk), "name": "Alice Liddell"}, "role": "VIEWER"}
        self.assertEqual(joined, {"__typename": "Member", **member})
        self.assertEqual(self.data("{ projects { nodes { name } } }"), {"projects": {"nodes": [{"name": "Garden"}]}})
        self.assertEqual(self.data("{ invitations { nodes { id } } }"), {"invitations": {"nodes": []}})

    def test_unknown_names_and_members_are_refused(self) -> None:
        for username in ("nobody", "", "alice\x00", "x" * 10_000):
            values = {"projectId": self.garden.pk, "username": username}
            self.assert_refused("inviteMember", values, "VALIDATION", "username", "NOT_FOUND")
        values = {"projectId": self.garden.pk, "username": self.viewer.username}
        self.assert_refused("inviteMember", values, "VALIDATION", "username", "ALREADY_A_MEMBER")

    def test_declining_and_cancelling_return_the_invitation_as_it_was(self) -> None:
        invited = self.invite()
        self.assertEqual(self.mutate("cancelInvitation", {"id": invited["id"]}), invited)
        invited = self.invite()
        self.client.force_login(self.alice)
        self.assertEqual(self.mutate("declineInvitation", {"id": invited["id"]}), invited)
        self.assertEqual((Invitation.objects.count(), Membership.objects.count()), (0, 3))

    def test_an_expired_invitation_cannot_be_accepted(self) -> None:
        invitation = InvitationFactory(user=self.alice, expires_at=timezone.now() - timedelta(seconds=1))
        self.client.force_login(self.alice)
        self.assert_refused("acceptInvitation", {"id": invitation.pk}, "VALIDATION", None, "INVITATION_EXPIRED")

    def test_absent_invitations_and_those_of_others_are_not_found(self) -> None:
        others = InvitationFactory()
        for absent in [*ABSENT_IDS, str(others.pk)]:
            for name in ("acceptInvitation", "declineInvitation", "cancelInvitation"):
                self.assert_refused(name, {"id": absent}, "ERROR", None, "NOT_FOUND")


class ListTests(InvitationCase):
    def test_an_owner_lists_the_invitations_to_a_project(self) -> None:
        second, first = (InvitationFactory(project=self.garden) for _ in range(2))
        InvitationFactory()
        query = f"{{ invitations(projectId: {self.garden.pk}) {{ totalCount nodes {{ id }} }} }}"
        expected = {"totalCount": 2, "nodes": [{"id": str(row.pk)} for row in (first, second)]}
        self.assertEqual(self.data(query), {"invitations": expected})

    def test_only_an_owner_lists_the_invitations_to_a_project(self) -> None:
        for user, code in ((self.editor, "FORBIDDEN"), (self.viewer, "FORBIDDEN"), (self.alice, "NOT_FOUND")):
            self.client.force_login(user)
            for selection in ("totalCount", "nodes { id }"):
                [error] = self.gql(f"{{ invitations(projectId: {self.garden.pk}) {{ {selection} }} }}")["errors"]
                self.assertEqual((error["extensions"]["code"], error["path"]), (code, ["invitations"]))

    def test_pages_continue_at_a_cursor_of_the_same_list_only(self) -> None:
        self.client.force_login(self.alice)
        pks = [str(InvitationFactory(user=self.alice).pk) for _ in range(3)]
        page = self.data("{ invitations(first: 2) { nodes { id } pageInfo { hasNextPage endCursor } } }")["invitations"]
        self.assertEqual([row["id"] for row in page["nodes"]], [pks[2], pks[1]])
        cursor = page["pageInfo"]["endCursor"]
        rest = self.data(f'{{ invitations(first: 2, after: "{cursor}") {{ nodes {{ id }} }} }}')["invitations"]
        self.assertEqual(rest["nodes"], [{"id": pks[0]}])
        self.client.force_login(self.owner)
        of_project = f'{{ invitations(projectId: {self.garden.pk}, after: "{cursor}") {{ totalCount }} }}'
        [error] = self.gql(of_project)["errors"]
        self.assertEqual(error["extensions"], {"code": "BAD_USER_INPUT", "argument": "after"})
