"""Inviting users to projects; accepting, declining and cancelling invitations."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import orjson
from django.core import mail
from django.core.exceptions import ValidationError
from django.test import override_settings
from django.utils import timezone

from backend.projects import services
from backend.projects.access import ANONYMOUS, SYSTEM, UNRESTRICTED, Viewer, viewer_for, visible_project_ids
from backend.projects.authentication import viewer_by_token
from backend.projects.cache.versions import GLOBAL_TAG, access_tag, project_tag
from backend.projects.errors import (
    AlreadyAMember,
    InvitationExpired,
    InvitationNotFound,
    InvitationRequired,
    MissingScope,
    NotAllowed,
    NotSignedIn,
    ProjectNotFound,
    UnknownUser,
)
from backend.projects.models import Event, Invitation, Membership, Project, Role, Scope, Task, User
from backend.projects.resolvers.invitation import count_invitations, list_invitations, list_project_invitations
from backend.projects.resolvers.page import PageRequest
from backend.projects.rows import InvitationRow
from backend.projects.services.invitation import (
    accept_invitation,
    cancel_invitation,
    decline_invitation,
    invite_member,
)
from backend.projects.services.membership import add_member
from tasks.retention import trim
from tests.cases import CommittingCase, token_of
from tests.factories import InvitationFactory, MembershipFactory, ProjectFactory, TaskFactory, UserFactory
from tests.projects.cases import MemberCase

PAGE = PageRequest(default_size=10)


class InvitationCase(MemberCase):
    def invite(self, actor: Viewer | None = None, **arguments: Any) -> Invitation:
        defaults = {"project_id": self.garden.pk, "username": "alice"}
        return invite_member(actor=actor or self.as_owner, **defaults | arguments)


class InviteTests(InvitationCase):
    def test_an_owner_invites_a_user_as_an_editor_for_a_week_by_default(self) -> None:
        now = timezone.now()
        invitation = self.invite()
        self.assertEqual(
            InvitationRow.of(invitation).as_json() | {"created_at": None, "expires_at": None},
            {
                "id": invitation.pk,
                "project": self.garden.pk,
                "project_name": "Garden",
                "user": self.alice.pk,
                "user_name": "Alice Liddell",
                "role": "editor",
                "invited_by": {"id": self.owner.pk, "name": self.owner.username},
                "created_at": None,
                "expires_at": None,
            },
        )
        self.assertLessEqual(now, invitation.created_at)
        self.assertEqual(invitation.expires_at - invitation.created_at, timedelta(days=7))
        self.assertEqual(self.audit(), [("member_invited", self.owner.pk, self.alice.pk, self.garden.pk, "editor")])

    @override_settings(INVITATION_DAYS=2)
    def test_the_lifetime_of_an_invitation_is_a_setting(self) -> None:
        invitation = self.invite()
        self.assertEqual(invitation.expires_at - invitation.created_at, timedelta(days=2))

    def test_an_invited_user_sees_nothing_of_the_project_and_no_position_is_taken(self) -> None:
        before = visible_project_ids(self.as_alice)
        with self.committed():
            self.invite(role=Role.OWNER)
        self.assertEqual(visible_project_ids(self.as_alice), before)
        self.assertEqual((self.role_of(self.alice), Event.head()), (None, 0))

    def test_an_invited_user_gets_no_mail(self) -> None:
        TaskFactory(project=self.garden, due_date=timezone.now() + timedelta(hours=1), assignee=self.alice)
        MembershipFactory(project=self.garden, role=Role.OWNER, user__email="")
        User.objects.exclude(pk=self.alice.pk).update(email="")
        self.invite(role=Role.OWNER)
        self.assertEqual(services.reminder.scan(now=timezone.now()), [])
        services.report.generate(self.garden.pk, timezone.now().date() - timedelta(days=1))
        self.assertEqual(services.report.mails_to_send(now=timezone.now()), [])
        self.assertEqual(mail.outbox, [])

    def test_a_task_cannot_be_assigned_to_an_invited_user(self) -> None:
        self.invite()
        with self.refused(ValidationError):
            services.task.create_task(
                actor=self.as_owner,
                project_id=self.garden.pk,
                changes={"title": "Weed", "due_date": timezone.now(), "assignee_id": self.alice.pk},
            )
        self.assertFalse(Task.objects.exists())

    def test_a_second_invitation_replaces_the_first(self) -> None:
        first = self.invite(role=Role.OWNER)
        Invitation.objects.update(expires_at=timezone.now() - timedelta(days=1))
        second_owner = MembershipFactory(project=self.garden, role=Role.OWNER).user
        self.invite(viewer_for(second_owner), username="ALICE", role=Role.VIEWER)
        [row] = list_invitations(self.as_alice, page=PAGE).rows
        self.assertEqual((row.id, row.role, row.invited_by_id), (first.pk, "viewer", second_owner.pk))
        self.assertEqual([detail for *_, detail in self.audit()], ["owner", "viewer"])

    def test_a_member_cannot_be_invited(self) -> None:
        for member in (self.owner, self.viewer):
            with self.refused(AlreadyAMember):
                self.invite(username=member.username)

    def test_an_unknown_or_deactivated_user_cannot_be_invited(self) -> None:
        User.objects.filter(pk=self.alice.pk).update(is_active=False)
        for username in ("alice", "nobody", "", "alice\x00", "x" * 10_000, "al%"):
            with self.subTest(username[:20]), self.refused(UnknownUser):
                self.invite(username=username)

    def test_an_unknown_role_is_refused(self) -> None:
        for role in ("boss", "", "OWNER", None):
            with self.subTest(role), self.refused(ValidationError):
                self.invite(role=role)

    def test_editors_and_viewers_may_not_invite_and_learn_no_user_names(self) -> None:
        for member in (self.editor, self.viewer):
            for username in ("alice", "nobody", self.owner.username):
                with self.subTest(username), self.refused(NotAllowed):
                    self.invite(viewer_for(member), username=username)

    def test_an_invisible_project_is_like_an_absent_one(self) -> None:
        for project_id in (self.kitchen.pk, 999999, None):
            with self.subTest(project_id), self.refused(ProjectNotFound):
                self.invite(project_id=project_id)

    def test_staff_may_invite_to_any_project(self) -> None:
        self.assertEqual(self.invite(self.as_staff).user, self.alice)

    def test_open_mode_invites_without_a_sender(self) -> None:
        self.assertIsNone(InvitationRow.of(self.invite(UNRESTRICTED)).as_json()["invited_by"])


class AddTests(InvitationCase):
    def test_an_owner_must_invite_a_user_instead_of_adding_them(self) -> None:
        for username in ("alice", "nobody", self.editor.username):
            with self.subTest(username), self.refused(InvitationRequired):
                add_member(actor=self.as_owner, project_id=self.garden.pk, username=username)

    def test_adding_an_invited_user_ends_the_invitation(self) -> None:
        self.invite()
        InvitationFactory(user=self.alice)
        add_member(actor=SYSTEM, project_id=self.garden.pk, username="alice", role=Role.VIEWER)
        self.assertEqual(self.role_of(self.alice), Role.VIEWER)
        self.assertFalse(Invitation.objects.filter(project=self.garden).exists())
        self.assertEqual(Invitation.objects.count(), 1)


class AcceptTests(InvitationCase):
    def accept(self, invitation: Invitation | int | None, actor: Viewer | None = None) -> Membership:
        invitation_id = invitation.pk if isinstance(invitation, Invitation) else invitation
        return accept_invitation(actor=actor or self.as_alice, invitation_id=invitation_id)

    def test_accepting_joins_the_project_and_takes_a_position(self) -> None:
        invitation = self.invite(role=Role.VIEWER)
        with self.bumps(GLOBAL_TAG, project_tag(self.garden.pk), access_tag(self.alice.pk)):
            joined = self.accept(invitation)
        self.assertEqual((joined.user, joined.role, self.role_of(self.alice)), (self.alice, "viewer", Role.VIEWER))
        self.assertIn(self.garden.pk, visible_project_ids(self.as_alice))
        [event] = Event.objects.all()
        self.assertEqual(
            (event.kind, event.project_id, event.actor_id, orjson.loads(event.payload)["users"]),
            ("access.changed", self.garden.pk, self.alice.pk, [self.alice.pk]),
        )
        self.assertFalse(Invitation.objects.exists())
        self.assertEqual(
            self.audit()[1:], [("invitation_accepted", self.alice.pk, self.alice.pk, self.garden.pk, "viewer")]
        )

    def test_an_invitation_is_accepted_once(self) -> None:
        invitation = self.invite()
        pk = invitation.pk
        self.accept(invitation)
        with self.refused(InvitationNotFound):
            self.accept(pk)

    def test_only_the_invited_user_may_accept(self) -> None:
        invitation = self.invite()
        for actor in (self.as_owner, self.as_staff, SYSTEM, UNRESTRICTED):
            with self.subTest(actor.name), self.refused(InvitationNotFound):
                self.accept(invitation, actor)
        for absent in (999999, None):
            with self.subTest(absent), self.refused(InvitationNotFound):
                self.accept(absent)
        with self.refused(NotSignedIn):
            self.accept(invitation, ANONYMOUS)

    def test_an_expired_invitation_is_refused_with_an_error_of_its_own(self) -> None:
        invitation = self.invite()
        Invitation.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
        with self.refused(InvitationExpired):
            self.accept(invitation)

    def test_an_invitation_outlives_the_account_of_its_sender(self) -> None:
        invitation = self.invite(viewer_for(MembershipFactory(project=self.garden, role=Role.OWNER).user))
        sender = invitation.invited_by
        assert sender is not None
        services.user.delete_user(actor=SYSTEM, user_id=sender.pk)
        [row] = list_invitations(self.as_alice, page=PAGE).rows
        self.assertEqual((row.invited_by_id, row.invited_by_name), (None, ""))
        self.accept(invitation)
        self.assertEqual(self.role_of(self.alice), Role.EDITOR)

    def test_deleting_a_project_or_account_deletes_its_invitations(self) -> None:
        self.invite()
        InvitationFactory(user=self.alice)
        services.project.delete_project(actor=self.as_owner, project_id=self.garden.pk)
        self.assertEqual(Invitation.objects.count(), 1)
        services.user.delete_user(actor=SYSTEM, user_id=self.alice.pk)
        self.assertEqual(Invitation.objects.count(), 0)

    def test_the_admin_scope_is_required(self) -> None:
        invitation = self.invite()
        for scope in (Scope.READ, Scope.WRITE):
            alice = viewer_by_token(token_of(self.alice, scope), address="")
            for act in (accept_invitation, decline_invitation):
                with self.subTest(scope), self.refused(MissingScope):
                    act(actor=alice, invitation_id=invitation.pk)
            owner = viewer_by_token(token_of(self.owner, scope), address="")
            with self.subTest(scope), self.refused(MissingScope):
                cancel_invitation(actor=owner, invitation_id=invitation.pk)
            with self.subTest(scope), self.refused(MissingScope):
                self.invite(owner)


class EndTests(InvitationCase):
    def test_declining_deletes_the_invitation(self) -> None:
        invitation = self.invite()
        row = decline_invitation(actor=self.as_alice, invitation_id=invitation.pk)
        self.assertEqual(row, InvitationRow.of(invitation))
        self.assertEqual((Invitation.objects.count(), self.role_of(self.alice), Event.head()), (0, None, 0))
        self.assertEqual(
            self.audit()[1:], [("invitation_declined", self.alice.pk, self.alice.pk, self.garden.pk, "editor")]
        )

    def test_only_the_invited_user_may_decline(self) -> None:
        invitation = self.invite()
        for actor in (self.as_owner, self.as_staff, UNRESTRICTED):
            with self.subTest(actor.name), self.refused(InvitationNotFound):
                decline_invitation(actor=actor, invitation_id=invitation.pk)

    def test_an_owner_cancels_an_invitation(self) -> None:
        invitation = self.invite()
        row = cancel_invitation(actor=self.as_owner, invitation_id=invitation.pk)
        self.assertEqual(row, InvitationRow.of(invitation))
        self.assertEqual((Invitation.objects.count(), Event.head()), (0, 0))
        self.assertEqual(
            self.audit()[1:], [("invitation_cancelled", self.owner.pk, self.alice.pk, self.garden.pk, "editor")]
        )

    def test_only_owners_and_staff_may_cancel(self) -> None:
        invitation = self.invite()
        for member in (self.editor, self.viewer):
            with self.refused(NotAllowed):
                cancel_invitation(actor=viewer_for(member), invitation_id=invitation.pk)
        for actor in (self.as_alice, viewer_for(UserFactory())):
            for invitation_id in (invitation.pk, 999999, None):
                with self.subTest(invitation_id), self.refused(InvitationNotFound):
                    cancel_invitation(actor=actor, invitation_id=invitation_id)
        cancel_invitation(actor=self.as_staff, invitation_id=invitation.pk)
        self.assertFalse(Invitation.objects.exists())

    def test_the_retention_job_deletes_an_invitation_a_week_after_it_expired(self) -> None:
        now = timezone.now()
        kept = [InvitationFactory(expires_at=now - timedelta(days=days)).pk for days in (-1, 0, 6)]
        for days in (7.01, 30):
            InvitationFactory(expires_at=now - timedelta(days=days))
        self.assertEqual(services.retention.trim_invitations(now=now), 2)
        self.assertEqual(sorted(Invitation.objects.values_list("pk", flat=True)), kept)
        Invitation.objects.update(expires_at=now - timedelta(days=8))
        trim()
        self.assertFalse(Invitation.objects.exists())


class ListTests(InvitationCase):
    def test_a_user_sees_their_own_open_invitations_newest_first(self) -> None:
        invitations = [InvitationFactory(user=self.alice) for _ in range(2)]
        InvitationFactory(user=self.alice, expires_at=timezone.now() - timedelta(seconds=1))
        InvitationFactory(project=self.kitchen)
        page = list_invitations(self.as_alice, page=PAGE)
        self.assertEqual(list(page.rows), [InvitationRow.of(row) for row in reversed(invitations)])
        self.assertEqual(count_invitations(self.as_alice), 2)
        for viewer in (self.as_staff, UNRESTRICTED):
            self.assertEqual(list(list_invitations(viewer, page=PAGE).rows), [])
        with self.assertRaises(NotSignedIn):
            list_invitations(ANONYMOUS, page=PAGE)

    def test_owners_and_staff_see_the_open_invitations_to_a_project(self) -> None:
        invitation = self.invite()
        InvitationFactory(project=self.garden, expires_at=timezone.now() - timedelta(seconds=1))
        InvitationFactory()
        for viewer in (self.as_owner, self.as_staff):
            page = list_project_invitations(viewer, self.garden.pk, page=PAGE)
            self.assertEqual([row.id for row in page.rows], [invitation.pk])
        for member in (self.editor, self.viewer):
            with self.assertRaises(NotAllowed):
                list_project_invitations(viewer_for(member), self.garden.pk, page=PAGE)
        for project_id in (self.garden.pk, 999999, None):
            with self.assertRaises(ProjectNotFound):
                list_project_invitations(self.as_alice, project_id, page=PAGE)


class RaceTests(CommittingCase):
    def test_an_invitation_accepted_twice_at_once_adds_one_member(self) -> None:
        for _ in range(10):
            invitation = InvitationFactory()
            accept = [
                lambda invitation=invitation: accept_invitation(
                    actor=viewer_for(invitation.user), invitation_id=invitation.pk
                )
            ]
            raised = self.run_together(*accept * 2)
            self.assertEqual(list(map(type, raised)), [InvitationNotFound])
            self.assertEqual(Membership.objects.filter(project=invitation.project).count(), 1)

    def test_concurrent_invitations_of_a_user_leave_one(self) -> None:
        for _ in range(10):
            project, user = ProjectFactory(), UserFactory()
            invite = [
                lambda project=project, user=user: invite_member(
                    actor=SYSTEM, project_id=project.pk, username=user.username
                )
            ]
            self.assertEqual(self.run_together(*invite * 2), [])
            self.assertEqual(Invitation.objects.filter(project=project, user=user).count(), 1)

    def test_accepting_while_the_project_or_account_is_deleted_causes_no_deadlock(self) -> None:
        for _ in range(10):
            for delete in (
                lambda invitation: services.project.delete_project(actor=SYSTEM, project_id=invitation.project_id),
                lambda invitation: services.user.delete_user(actor=SYSTEM, user_id=invitation.user_id),
                lambda invitation: cancel_invitation(actor=SYSTEM, invitation_id=invitation.pk),
                lambda invitation: add_member(
                    actor=SYSTEM, project_id=invitation.project_id, username=invitation.user.username
                ),
            ):
                invitation = InvitationFactory()
                raised = self.run_together(
                    lambda invitation=invitation: accept_invitation(
                        actor=viewer_for(invitation.user), invitation_id=invitation.pk
                    ),
                    lambda invitation=invitation, delete=delete: delete(invitation),
                )
                self.assertLessEqual(set(map(type, raised)), {InvitationNotFound, NotSignedIn, AlreadyAMember}, raised)
                self.assertFalse(Invitation.objects.exists())
                members = Membership.objects.filter(project=invitation.project_id, user=invitation.user_id)
                self.assertLessEqual(members.count(), 1)
                Project.objects.all().delete()
