"""`/invitations/`, `/projects/<id>/invitations/` and the paths below them."""

from __future__ import annotations

from datetime import timedelta

from django.utils import timezone

from backend.projects.models import Invitation, Membership, Role
from backend.projects.rows import InvitationRow
from tests.factories import (
    InvitationFactory,
    MembershipFactory,
    ProjectFactory,
    UserFactory,
    create_member_of_each_role,
)
from tests.rest.cases import ABSENT_IDS, ClosedCase


class InvitationCase(ClosedCase):
    """A project with a member of each role, and Alice, who is in no project."""

    @classmethod
    def setUpTestData(cls) -> None:
        cls.project = ProjectFactory(name="Garden")
        cls.owner, cls.editor, cls.viewer = create_member_of_each_role(cls.project)
        cls.alice = UserFactory(username="alice", first_name="Alice", last_name="Liddell")
        cls.path = f"/projects/{cls.project.pk}/invitations/"

    def setUp(self) -> None:
        self.client.force_login(self.owner)


class InvitationTests(InvitationCase):
    def test_an_owner_invites_and_the_invited_user_accepts(self) -> None:
        response = self.send("POST", self.path, {"username": "ALICE", "role": "viewer"})
        invitation = Invitation.objects.select_related("project", "user", "invited_by").get()
        invited = {
            "id": invitation.pk,
            "project": self.project.pk,
            "project_name": "Garden",
            "user": self.alice.pk,
            "user_name": "Alice Liddell",
            "role": "viewer",
            "invited_by": {"id": self.owner.pk, "name": self.owner.username},
            "created_at": InvitationRow.of(invitation).created_at,
            "expires_at": InvitationRow.of(invitation).expires_at,
        }
        self.assertEqual((response.status_code, response.json()), (201, invited))
        self.assertEqual(response["Location"], f"{self.path}{invitation.pk}/")
        listed = self.client.get(self.path, {"count": 1})
        self.assertEqual((listed.json(), listed["X-Total-Count"], listed["X-Cursor"]), ([invited], "1", "0"))
        self.client.force_login(self.alice)
        self.assertEqual(self.client.get(f"/projects/{self.project.pk}/").status_code, 404)
        own = self.client.get("/invitations/", {"count": 1})
        self.assertEqual((own.json(), own["X-Total-Count"], own["X-Cursor"]), ([invited], "1", "0"))
        self.assertEqual(own["Cache-Control"], "private, no-cache")
        with self.committed():
            joined = self.send("POST", f"/invitations/{invitation.pk}/accept/")
        member = {"user": self.alice.pk, "name": "Alice Liddell", "role": "viewer"}
        self.assertEqual((joined.status_code, joined.json()), (201, member))
        self.assertEqual(self.client.get(joined["Location"]).json(), member)
        self.assertEqual(self.client.get("/invitations/").json(), [])

    def test_a_user_declines_an_invitation(self) -> None:
        invitation = InvitationFactory(user=self.alice)
        self.client.force_login(self.alice)
        response = self.send("POST", f"/invitations/{invitation.pk}/decline/")
        self.assertEqual((response.status_code, response.content), (204, b""))
        self.assertEqual((Invitation.objects.count(), Membership.objects.count()), (0, 3))

    def test_an_owner_cancels_an_invitation(self) -> None:
        location = self.send("POST", self.path, {"username": "alice"})["Location"]
        response = self.send("DELETE", location)
        self.assertEqual((response.status_code, response.content), (204, b""))
        self.assertFalse(Invitation.objects.exists())

    def test_the_refusal_of_a_bad_field_names_it(self) -> None:
        for name, value in (
            ("username", None),
            ("username", "nobody"),
            ("username", "alice\x00"),
            ("username", 5),
            ("username", self.editor.username),
            ("role", None),
            ("role", "boss"),
        ):
            with self.subTest(name=name, value=value), self.nothing_changes():
                response = self.send("POST", self.path, {"username": "alice", name: value})
                self.assert_refused(response, 400, name)

    def test_an_expired_invitation_cannot_be_accepted_and_is_in_no_list(self) -> None:
        past = timezone.now() - timedelta(seconds=1)
        invitation = InvitationFactory(user=self.alice, project=self.project, expires_at=past)
        self.assertEqual(self.client.get(self.path).json(), [])
        self.client.force_login(self.alice)
        self.assertEqual(self.client.get("/invitations/").json(), [])
        with self.nothing_changes():
            response = self.send("POST", f"/invitations/{invitation.pk}/accept/")
        self.assert_refused(response, 400, "non_field_errors")
        self.assertIn("has expired", response.json()["non_field_errors"][0])

    def test_absent_invitations_and_invitations_of_others_are_not_found(self) -> None:
        others = InvitationFactory(project=MembershipFactory(user=self.owner, role=Role.OWNER).project)
        paths = [
            f"/invitations/{absent}/{verb}/" for absent in (*ABSENT_IDS, others.pk) for verb in ("accept", "decline")
        ]
        for path in paths:
            with self.subTest(path), self.nothing_changes():
                self.assert_refused(self.send("POST", path), 404, "detail")
        for absent in (*ABSENT_IDS, others.pk):  # an invitation to another project of the owner
            with self.subTest(absent), self.nothing_changes():
                self.assert_refused(self.send("DELETE", f"{self.path}{absent}/"), 404, "detail")

    def test_all_pages_together_contain_every_invitation_once(self) -> None:
        pks = [InvitationFactory(project=self.project).pk for _ in range(3)]
        self.assertEqual(self.ids_of_all_pages(f"{self.path}?page_size=2"), [[pks[2], pks[1]], [pks[0]]])
