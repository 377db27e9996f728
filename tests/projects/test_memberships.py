"""Adding members, changing their roles, removing and listing them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
from django.core.exceptions import ValidationError
from django.db import connection
from django.test.utils import CaptureQueriesContext

from backend.projects.access import ANONYMOUS, SYSTEM, UNRESTRICTED, Viewer, viewer_for
from backend.projects.authentication import viewer_by_token
from backend.projects.cache.versions import GLOBAL_TAG, access_tag, project_tag
from backend.projects.errors import (
    AlreadyAMember,
    LastOwner,
    MemberNotFound,
    MissingScope,
    NotAllowed,
    NotSignedIn,
    ProjectNotFound,
    UnknownUser,
)
from backend.projects.models import AuditEntry, Event, Membership, Role, Scope, Task, User
from backend.projects.resolvers.membership import get_member, list_members
from backend.projects.resolvers.page import PageRequest
from backend.projects.rows import MemberRow, TaskRow
from backend.projects.services.membership import add_member, change_role, remove_member
from backend.projects.services.user import delete_user, save_user
from tests.cases import CommittingCase, token_of
from tests.factories import MembershipFactory, ProjectFactory, TaskFactory, UserFactory
from tests.projects.cases import MemberCase

# No user has any of these names, and some cannot even be queried.
FREE_NAMES = ["nobody", "", " ", "alice\x00", "\x00", "alice\ud800", "x" * 10_000, "alice ", "al%", "a_ice", "alice\n"]


class MembershipCase(MemberCase):
    def journal(self) -> list[tuple[str, int | None, list[int]]]:
        """Return the kind, the project and the affected users of every event."""
        events = Event.objects.order_by("position")
        return [(event.kind, event.project_id, orjson.loads(event.payload).get("users", [])) for event in events]


class AddTests(MembershipCase):
    def add(self, actor: Viewer | None = None, **arguments: Any) -> Membership:
        defaults = {"project_id": self.garden.pk, "username": "alice"}
        return add_member(actor=actor or self.as_staff, **defaults | arguments)

    def test_staff_add_a_member_as_an_editor_by_default(self) -> None:
        with self.bumps(GLOBAL_TAG, project_tag(self.garden.pk), access_tag(self.alice.pk)):
            added = self.add()
        self.assertEqual(
            MemberRow.of(added), MemberRow(added.pk, self.garden.pk, self.alice.pk, "Alice Liddell", "editor")
        )
        self.assertEqual(self.role_of(self.alice), Role.EDITOR)
        self.assertEqual(self.journal(), [("access.changed", self.garden.pk, [self.alice.pk])])
        self.assertEqual(self.audit(), [("member_added", self.staff.pk, self.alice.pk, self.garden.pk, "editor")])

    def test_a_member_may_be_added_in_any_role(self) -> None:
        for role in Role:
            self.assertEqual(self.add(username=UserFactory().username, role=role).role, role)

    def test_a_user_is_found_by_name_in_any_case(self) -> None:
        self.assertEqual(self.add(username="ALICE").user, self.alice)

    def test_an_unknown_name_is_refused(self) -> None:
        for username in FREE_NAMES:
            with self.subTest(ascii(username[:20])), self.refused(UnknownUser):
                self.add(username=username)

    def test_a_deactivated_account_is_not_added(self) -> None:
        User.objects.filter(pk=self.alice.pk).update(is_active=False)
        with self.refused(UnknownUser):
            self.add()

    def test_adding_a_member_twice_is_refused_and_keeps_their_role(self) -> None:
        for member in (self.owner, self.editor):
            for role in Role:
                with self.refused(AlreadyAMember):
                    self.add(username=member.username, role=role)

    def test_an_unknown_role_is_refused(self) -> None:
        for role in ("boss", "", "OWNER", None):
            with self.subTest(role), self.refused(ValidationError):
                self.add(role=role)

    def test_a_member_who_is_not_an_owner_may_not_add_members(self) -> None:
        for member in (self.editor, self.viewer):
            with self.refused(NotAllowed):
                self.add(viewer_for(member))

    def test_only_owners_learn_whether_a_user_exists(self) -> None:
        for username in ("alice", "nobody", self.owner.username):
            with self.subTest(username), self.refused(NotAllowed):
                self.add(viewer_for(self.editor), username=username)

    def test_an_invisible_project_is_like_an_absent_one(self) -> None:
        for project_id in (self.kitchen.pk, 999999, None):
            with self.subTest(project_id), self.refused(ProjectNotFound):
                self.add(self.as_owner, project_id=project_id)

    def test_an_anonymous_viewer_may_not_add_members(self) -> None:
        with self.refused(NotSignedIn):
            self.add(ANONYMOUS)

    def test_open_mode_may_add_members_to_any_project(self) -> None:
        self.add(UNRESTRICTED)
        self.assertEqual(self.role_of(self.alice), Role.EDITOR)


class ChangeTests(MembershipCase):
    def change(self, user_id: int | None, role: Any, actor: Viewer | None = None, **arguments: Any) -> Membership:
        where = {"project_id": self.garden.pk, **arguments}
        return change_role(actor=actor or self.as_owner, user_id=user_id, role=role, **where)

    def test_an_owner_changes_the_role_of_a_member(self) -> None:
        with self.bumps(GLOBAL_TAG, project_tag(self.garden.pk), access_tag(self.editor.pk)):
            changed = self.change(self.editor.pk, Role.VIEWER)
        self.assertEqual((changed.role, self.role_of(self.editor)), (Role.VIEWER, Role.VIEWER))
        self.assertEqual(self.journal(), [("access.changed", self.garden.pk, [self.editor.pk])])
        self.assertEqual(
            self.audit(), [("role_changed", self.owner.pk, self.editor.pk, self.garden.pk, "editor to viewer")]
        )

    def test_setting_the_current_role_changes_nothing(self) -> None:
        with self.nothing_changes(), self.bumps():
            self.assertEqual(self.change(self.editor.pk, Role.EDITOR).role, Role.EDITOR)
            self.assertEqual(self.change(self.owner.pk, Role.OWNER).role, Role.OWNER)

    def test_the_last_owner_may_not_be_demoted(self) -> None:
        for role in (Role.EDITOR, Role.VIEWER):
            with self.refused(LastOwner):
                self.change(self.owner.pk, role)

    def test_one_of_two_owners_may_be_demoted(self) -> None:
        self.change(self.editor.pk, Role.OWNER)
        self.change(self.owner.pk, Role.VIEWER, actor=viewer_for(self.editor))
        self.assertEqual((self.role_of(self.editor), self.role_of(self.owner)), (Role.OWNER, Role.VIEWER))

    def test_an_unknown_role_is_refused(self) -> None:
        for role in ("boss", "", "OWNER", None):
            with self.subTest(role), self.refused(ValidationError):
                self.change(self.editor.pk, role)

    def test_changing_the_role_of_a_non_member_is_refused(self) -> None:
        for user_id in (self.alice.pk, 999999, None):
            with self.subTest(user_id), self.refused(MemberNotFound):
                self.change(user_id, Role.VIEWER)

    def test_a_member_who_is_not_an_owner_may_not_change_roles_even_their_own(self) -> None:
        for member in (self.editor, self.viewer):
            for user_id in (member.pk, self.owner.pk, self.alice.pk):
                with self.refused(NotAllowed):
                    self.change(user_id, Role.OWNER, actor=viewer_for(member))

    def test_an_invisible_project_is_like_an_absent_one(self) -> None:
        for project_id in (self.kitchen.pk, 999999, None):
            with self.subTest(project_id), self.refused(ProjectNotFound):
                self.change(self.alice.pk, Role.VIEWER, project_id=project_id)

    def test_staff_may_change_any_role_but_not_demote_the_last_owner(self) -> None:
        with self.refused(LastOwner):
            self.change(self.owner.pk, Role.EDITOR, actor=self.as_staff)
        self.change(self.viewer.pk, Role.OWNER, actor=self.as_staff)
        self.change(self.owner.pk, Role.EDITOR, actor=self.as_staff)
        self.assertEqual((self.role_of(self.viewer), self.role_of(self.owner)), (Role.OWNER, Role.EDITOR))


class RemoveTests(MembershipCase):
    def remove(self, user_id: int | None, actor: Viewer | None = None, **arguments: Any) -> Membership:
        where = {"project_id": self.garden.pk, **arguments}
        return remove_member(actor=actor or self.as_owner, user_id=user_id, **where)

    def test_an_owner_removes_a_member(self) -> None:
        with self.bumps(GLOBAL_TAG, project_tag(self.garden.pk), access_tag(self.editor.pk)):
            removed = self.remove(self.editor.pk)
        self.assertEqual((removed.user, removed.role, self.role_of(self.editor)), (self.editor, Role.EDITOR, None))
        self.assertEqual(self.journal(), [("access.changed", self.garden.pk, [self.editor.pk])])
        self.assertEqual(self.audit(), [("member_removed", self.owner.pk, self.editor.pk, self.garden.pk, "editor")])

    def test_editors_and_viewers_may_leave(self) -> None:
        for member in (self.editor, self.viewer):
            self.remove(member.pk, actor=viewer_for(member))
            self.assertIsNone(self.role_of(member))
        self.assertEqual([actor for _, actor, *_ in self.audit()], [self.editor.pk, self.viewer.pk])

    def test_a_member_who_is_not_an_owner_may_not_remove_others(self) -> None:
        for member, other in ((self.editor, self.viewer), (self.viewer, self.owner), (self.viewer, self.alice)):
            with self.refused(NotAllowed):
                self.remove(other.pk, actor=viewer_for(member))

    def test_the_last_owner_may_not_be_removed(self) -> None:
        for actor in (self.as_owner, SYSTEM):
            with self.refused(LastOwner):
                self.remove(self.owner.pk, actor=actor)

    def test_one_of_two_owners_may_leave(self) -> None:
        MembershipFactory(project=self.garden, role=Role.OWNER)
        self.remove(self.owner.pk)
        self.assertIsNone(self.role_of(self.owner))

    def test_removing_a_member_unassigns_their_tasks_with_an_event_each(self) -> None:
        theirs = TaskFactory.create_batch(2, project=self.garden, assignee=self.editor)
        others = [
            TaskFactory(project=self.garden, assignee=self.owner),
            TaskFactory(project=MembershipFactory(user=self.editor).project, assignee=self.editor),
        ]
        self.remove(self.editor.pk)
        self.assertEqual(
            [(task.assignee, task.version) for task in Task.objects.filter(pk__in=[task.pk for task in theirs])],
            [(None, 2), (None, 2)],
        )
        for task in others:
            before = (task.assignee, task.version)
            task.refresh_from_db()
            self.assertEqual((task.assignee, task.version), before)
        updates = Event.objects.filter(kind="task.updated").order_by("position")
        self.assertEqual(list(updates.values_list("task_id", flat=True)), [task.pk for task in theirs])
        self.assertEqual({tuple(orjson.loads(update.payload)["changes"]) for update in updates}, {("assignee",)})

    def test_removing_a_member_takes_as_many_statements_for_fifty_tasks_as_for_one(self) -> None:
        counts = []
        for tasks in (1, 50):
            member = MembershipFactory(project=self.garden).user
            TaskFactory.create_batch(tasks, project=self.garden, assignee=member)
            with CaptureQueriesContext(connection) as captured:
                self.remove(member.pk)
            counts.append(len(captured))
        self.assertEqual(counts[0], counts[1])

    def test_the_events_of_many_tasks_show_the_tasks_after_the_change(self) -> None:
        tasks = TaskFactory.create_batch(3, project=self.garden, assignee=self.editor, description="Weed the beds.")
        self.remove(self.editor.pk)
        updates = Event.objects.filter(kind="task.updated").order_by("position")
        self.assertEqual(
            [orjson.loads(payload)["task"] for payload in updates.values_list("payload", flat=True)],
            [TaskRow.of(Task.objects.get(pk=task.pk)).as_json() for task in tasks],
        )
        self.assertEqual(
            list(Event.objects.order_by("position").values_list("kind", flat=True)),
            ["access.changed", *["task.updated"] * 3],
        )

    def test_removing_a_non_member_is_refused(self) -> None:
        for user_id in (self.alice.pk, 999999, None):
            with self.subTest(user_id), self.refused(MemberNotFound):
                self.remove(user_id)

    def test_staff_cannot_leave_a_project_that_they_are_not_in(self) -> None:
        with self.refused(MemberNotFound):
            self.remove(self.staff.pk, actor=self.as_staff)

    def test_an_invisible_project_is_like_an_absent_one(self) -> None:
        for project_id in (self.kitchen.pk, 999999, None):
            with self.subTest(project_id), self.refused(ProjectNotFound):
                self.remove(self.owner.pk, project_id=project_id)


class CredentialTests(MembershipCase):
    def changes(self, actor: Viewer) -> list[Callable[[], Any]]:
        where: Any = {"actor": actor, "project_id": self.garden.pk}
        return [
            lambda: add_member(**where, username="alice"),
            lambda: change_role(**where, user_id=self.editor.pk, role=Role.VIEWER),
            lambda: remove_member(**where, user_id=self.viewer.pk),
        ]

    def test_the_audit_log_records_the_token_and_the_address(self) -> None:
        actor = viewer_by_token(token_of(self.staff), address="203.0.113.7")
        for change in self.changes(actor):
            change()
        entries = AuditEntry.objects.filter(actor_token_id=actor.token_id, address="203.0.113.7").order_by("pk")
        self.assertEqual(
            list(entries.values_list("action", "actor_name", "user_name")),
            [
                ("member_added", self.staff.username, "Alice Liddell"),
                ("role_changed", self.staff.username, self.editor.username),
                ("member_removed", self.staff.username, self.viewer.username),
            ],
        )

    def test_managing_members_requires_the_admin_scope(self) -> None:
        for scope in (Scope.READ, Scope.WRITE):
            for change in self.changes(viewer_by_token(token_of(self.owner, scope), address="")):
                with self.subTest(scope), self.refused(MissingScope):
                    change()

    def test_the_token_scope_is_checked_before_any_row_is_read(self) -> None:
        actor = viewer_by_token(token_of(self.owner, Scope.WRITE), address="")
        with self.refused(MissingScope):
            remove_member(actor=actor, project_id=999999, user_id=self.owner.pk)


class ListTests(MembershipCase):
    def names(self, viewer: Viewer) -> list[tuple[str, str]]:
        """Return the name and role of each member. A second read, from the cache, must be the same."""
        first, again = (list_members(viewer, self.garden.pk, page=PageRequest(default_size=10)) for _ in range(2))
        self.assertEqual(first, again)
        return [(row.name, row.role) for row in first.page.rows]

    def test_a_list_is_fresh_after_each_change_of_a_member(self) -> None:
        owner, editor, reader = (user.username for user in (self.owner, self.editor, self.viewer))
        for viewer in (self.as_owner, viewer_for(self.viewer), SYSTEM):
            before = [(reader, "viewer"), (editor, "editor"), (owner, "owner")]
            where: Any = {"actor": self.as_owner, "project_id": self.garden.pk}
            with self.subTest(viewer.key):
                self.assertEqual(self.names(viewer), before)
                with self.committed():
                    add_member(**where | {"actor": SYSTEM}, username="alice", role=Role.VIEWER)
                self.assertEqual(self.names(viewer), [("Alice Liddell", "viewer"), *before])
                with self.committed():
                    change_role(**where, user_id=self.alice.pk, role=Role.OWNER)
                self.assertEqual(self.names(viewer), [("Alice Liddell", "owner"), *before])
                self.alice.last_name = "Pleasance"
                with self.committed():
                    save_user(actor=SYSTEM, user=self.alice)
                self.assertEqual(self.names(viewer), [("Alice Pleasance", "owner"), *before])
                with self.committed():
                    remove_member(**where, user_id=self.alice.pk)
                self.assertEqual(self.names(viewer), before)
                self.alice.last_name = "Liddell"
                with self.committed():
                    save_user(actor=SYSTEM, user=self.alice)

    def test_a_list_is_fresh_after_the_deletion_of_an_account(self) -> None:
        self.assertEqual(len(self.names(self.as_owner)), 3)
        with self.committed():
            delete_user(actor=SYSTEM, user_id=self.editor.pk)
        self.assertEqual([name for name, _ in self.names(self.as_owner)], [self.viewer.username, self.owner.username])

    def test_a_member_is_visible_to_every_viewer_of_the_project(self) -> None:
        row = get_member(viewer_for(self.viewer), self.garden.pk, self.owner.pk)
        self.assertEqual(row.as_json(), {"user": self.owner.pk, "name": self.owner.username, "role": "owner"})
        for user_id in (self.alice.pk, 999999, None):
            with self.subTest(user_id), self.assertRaises(MemberNotFound):
                get_member(self.as_owner, self.garden.pk, user_id)
        for project_id in (self.garden.pk, 999999, None):
            with self.subTest(project_id), self.assertRaises(ProjectNotFound):
                get_member(viewer_for(self.alice), project_id, self.owner.pk)


class RaceTests(CommittingCase):
    def test_two_owners_who_leave_at_once_leave_one_owner(self) -> None:
        for _ in range(10):
            project = ProjectFactory()
            owners = [MembershipFactory(project=project, role=Role.OWNER).user for _ in range(2)]
            raised = self.run_together(
                *(
                    lambda owner=owner, project=project: remove_member(
                        actor=viewer_for(owner), project_id=project.pk, user_id=owner.pk
                    )
                    for owner in owners
                )
            )
            self.assertEqual(list(map(type, raised)), [LastOwner])
            self.assertEqual(Membership.objects.filter(project=project, role=Role.OWNER).count(), 1)
            self.assertEqual(Event.objects.filter(project_id=project.pk).count(), 1)

    def test_two_owners_who_demote_each_other_at_once_leave_one_owner(self) -> None:
        for _ in range(10):
            project = ProjectFactory()
            first, second = (MembershipFactory(project=project, role=Role.OWNER).user for _ in range(2))
            raised = self.run_together(
                *(
                    lambda actor=actor, user=user, project=project: change_role(
                        actor=viewer_for(actor), project_id=project.pk, user_id=user.pk, role=Role.VIEWER
                    )
                    for actor, user in ((first, second), (second, first))
                )
            )
            self.assertEqual(list(map(type, raised)), [NotAllowed])
            self.assertEqual(Membership.objects.filter(project=project, role=Role.OWNER).count(), 1)

    def test_a_user_added_twice_at_once_is_a_member_once(self) -> None:
        for _ in range(10):
            project, user = ProjectFactory(), UserFactory()
            add = [
                lambda project=project, user=user: add_member(
                    actor=SYSTEM, project_id=project.pk, username=user.username
                )
            ]
            self.assertEqual(list(map(type, self.run_together(*add * 2))), [AlreadyAMember])
            self.assertEqual(Membership.objects.filter(project=project, user=user).count(), 1)

    def test_deleting_an_account_during_a_change_of_its_membership_causes_no_deadlock(self) -> None:
        for _ in range(10):
            member = MembershipFactory()
            TaskFactory.create_batch(3, project=member.project, assignee=member.user)
            raised = self.run_together(
                lambda member=member: remove_member(actor=SYSTEM, project_id=member.project_id, user_id=member.user_id),
                lambda member=member: delete_user(actor=SYSTEM, user_id=member.user_id),
            )
            self.assertLessEqual(set(map(type, raised)), {MemberNotFound})
            other = MembershipFactory(role=Role.VIEWER)
            raised = self.run_together(
                lambda other=other: change_role(
                    actor=SYSTEM, project_id=other.project_id, user_id=other.user_id, role=Role.EDITOR
                ),
                lambda other=other: delete_user(actor=SYSTEM, user_id=other.user_id),
            )
            self.assertLessEqual(set(map(type, raised)), {MemberNotFound})
            self.assertEqual((Membership.objects.count(), Task.objects.exclude(assignee=None).count()), (0, 0))
