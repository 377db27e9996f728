"""The base class of the tests of members and invitations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from backend.projects.access import viewer_for
from backend.projects.cache import versions
from backend.projects.cache.versions import GLOBAL_TAG, access_tag, project_tag
from backend.projects.models import AuditEntry, Event, Membership, Role, User
from tests.cases import Case
from tests.factories import MembershipFactory, ProjectFactory, UserFactory, create_member_of_each_role


class MemberCase(Case):
    """A project, `garden`, with a member in each role; Alice, who owns another project, `kitchen`; and a staff user."""

    @classmethod
    def setUpTestData(cls) -> None:
        cls.garden = ProjectFactory(name="Garden")
        cls.owner, cls.editor, cls.viewer = create_member_of_each_role(cls.garden)
        cls.alice = UserFactory(username="alice", first_name="Alice", last_name="Liddell")
        cls.kitchen = MembershipFactory(user=cls.alice, role=Role.OWNER).project
        cls.staff = UserFactory(is_staff=True)
        cls.as_owner, cls.as_alice, cls.as_staff = map(viewer_for, (cls.owner, cls.alice, cls.staff))

    def role_of(self, user: User) -> str | None:
        """Return the role of a user in the garden."""
        return Membership.objects.filter(project=self.garden, user=user).values_list("role", flat=True).first()

    def audit(self) -> list[tuple[str, int | None, int | None, int | None, str]]:
        """Return the action, actor, user, project and detail of every entry."""
        return list(
            AuditEntry.objects.order_by("pk").values_list("action", "actor_id", "user_id", "project_id", "detail")
        )

    @contextmanager
    def refused(self, error: type[Exception]) -> Iterator[None]:
        """Assert that the block raises `error` and changes nothing."""
        with self.nothing_changes(), self.assertRaises(error):
            yield

    @contextmanager
    def bumps(self, *expected: str) -> Iterator[None]:
        """Assert that the commit of the block bumps these tags and no other."""
        users = User.objects.values_list("pk", flat=True)
        tags = [GLOBAL_TAG, *map(access_tag, users), *map(project_tag, (self.garden.pk, self.kitchen.pk))]
        versions.bump(dict.fromkeys(tags, 0))  # so that each version is known
        versions_by_tag = {tag: versions.versions_at([tag], Event.head()) for tag in tags}
        with self.committed():
            yield
        self.assertEqual({tag for tag in tags if not versions.is_current(versions_by_tag[tag])}, set(expected))
