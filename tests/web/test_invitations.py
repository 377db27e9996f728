"""The page on which a user accepts and declines invitations."""

from __future__ import annotations

from datetime import timedelta

from django.test import Client
from django.utils import timezone

from backend.projects.models import Invitation, Membership
from tests.cases import Case
from tests.factories import InvitationFactory, UserFactory

PAGE = "/accounts/invitations/"


class InvitationPageTests(Case):
    @classmethod
    def setUpTestData(cls) -> None:
        cls.alice = UserFactory(username="alice")

    def setUp(self) -> None:
        self.client.force_login(self.alice)

    def test_the_page_lists_only_open_invitations_of_the_user(self) -> None:
        InvitationFactory(user=self.alice, project__name="<Garden>", invited_by__username="bob", role="viewer")
        InvitationFactory(user=self.alice, project__name="Attic", expires_at=timezone.now() - timedelta(seconds=1))
        InvitationFactory(project__name="Kitchen")
        page = self.client.get(PAGE)
        self.assertContains(page, "&lt;Garden&gt;")
        self.assertContains(page, "as viewer, from <strong>bob</strong>")
        for hidden in ("Attic", "Kitchen", "<script"):
            self.assertNotContains(page, hidden)

    def test_a_user_accepts_an_invitation(self) -> None:
        invitation = InvitationFactory(user=self.alice, role="viewer")
        response = self.client.post(PAGE, {"accept": invitation.pk}, follow=True)
        self.assertContains(response, "You are a member of the project now.")
        self.assertContains(response, "You have no open invitations.")
        member = Membership.objects.get()
        self.assertEqual((member.user, member.project, member.role), (self.alice, invitation.project, "viewer"))

    def test_a_user_declines_an_invitation(self) -> None:
        invitation = InvitationFactory(user=self.alice)
        response = self.client.post(PAGE, {"decline": invitation.pk}, follow=True)
        self.assertContains(response, "The invitation is declined.")
        self.assertFalse(Invitation.objects.exists() or Membership.objects.exists())

    def test_an_expired_or_absent_invitation_is_shown_as_an_error(self) -> None:
        expired = InvitationFactory(user=self.alice, expires_at=timezone.now() - timedelta(seconds=1))
        for form, message in (
            ({"accept": expired.pk}, "This invitation has expired: ask an owner for a new one."),
            ({"accept": InvitationFactory().pk}, "There is no such invitation."),
            ({"decline": InvitationFactory().pk}, "There is no such invitation."),
            ({"decline": "x"}, "There is no such invitation."),
            ({}, "There is no such invitation."),
        ):
            with self.subTest(form), self.nothing_changes():
                response = self.client.post(PAGE, form, follow=True)
                self.assertContains(response, f'<p class="refused" role="status">{message}</p>', html=True)

    def test_a_post_without_a_csrf_token_is_refused(self) -> None:
        invitation = InvitationFactory(user=self.alice)
        client = Client(enforce_csrf_checks=True)
        client.force_login(self.alice)
        with self.nothing_changes():
            self.assertEqual(client.post(PAGE, {"accept": invitation.pk}).status_code, 403)

    def test_the_page_requires_a_session(self) -> None:
        self.client.logout()
        for response in (self.client.get(PAGE), self.client.post(PAGE, {"accept": 1})):
            self.assertRedirects(response, f"/accounts/sign-in/?next={PAGE}", fetch_redirect_response=False)
