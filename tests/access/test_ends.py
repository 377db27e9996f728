"""A viewer who loses a permission receives no events that require it after the next poll, at every endpoint.

The writer is killed before its notification, so only a poll can find the change.
"""

from __future__ import annotations

from contextlib import AsyncExitStack, aclosing
from typing import Any

from asgiref.sync import sync_to_async
from django.test import override_settings

from backend.projects import services
from backend.projects.access import SYSTEM
from backend.projects.models import Event, Role
from tests.access.listeners import Listener, listen
from tests.access.world import session_of
from tests.cases import CommittingCase
from tests.factories import MembershipFactory, ProjectFactory, TaskFactory, UserFactory
from tests.schema.sockets import ready

UNFILTERED = ["Subscription.events", "WS /ws/notifications/", "SSE /events/"]
FILTERED = {
    "Subscription.events(projectId)": ", projectId: {project}",
    "Subscription.events(taskId)": ", taskId: {task}",
    "WS /ws/notifications/": "&project={project}",
    "SSE /events/": "&project={project}",
}


@override_settings(LIVE_POLL_S=0.2)
class EndTests(CommittingCase):
    def setUp(self) -> None:
        self.user = UserFactory()
        self.garden, self.kitchen = (ProjectFactory() for _ in range(2))
        for project in (self.garden, self.kitchen):
            MembershipFactory(project=project, user=self.user, role=Role.VIEWER)
        self.task = TaskFactory(project=self.garden)
        self.session = session_of(self.user)
        self.change(self.garden)

    def change(self, project: Any) -> int:
        """Change a project in a way that all its members receive; return the position."""
        if project == self.garden:
            services.comment.add_comment(actor=SYSTEM, task_id=self.task.pk, content="Done?", author="Ada")
        else:
            services.project.update_project(actor=SYSTEM, project_id=project.pk, changes={"name": "New"})
        return Event.head()

    async def opened(self, stack: AsyncExitStack) -> tuple[dict[str, Listener], dict[str, Listener]]:
        """Return unfiltered and filtered listeners by endpoint. Each has received the first event."""
        cookie = {"cookie": f"sessionid={self.session}"}
        names = {"project": self.garden.pk, "task": self.task.pk}
        unfiltered = {endpoint: listen(endpoint, "", cookie) for endpoint in UNFILTERED}
        filtered = {
            endpoint: listen(endpoint, filters.format(**names), cookie) for endpoint, filters in FILTERED.items()
        }
        for endpoint, listener in (*unfiltered.items(), *filtered.items()):
            await stack.enter_async_context(aclosing(listener))
            self.assertEqual(await anext(listener), 1, endpoint)
        return unfiltered, filtered

    async def test_a_removed_member_receives_no_further_events_of_the_project(self) -> None:
        def remove_member() -> int:
            services.membership.remove_member(actor=SYSTEM, project_id=self.garden.pk, user_id=self.user.pk)
            self.change(self.garden)
            return self.change(self.kitchen)

        async with AsyncExitStack() as stack:
            unfiltered, filtered = await self.opened(stack)
            next_position = await sync_to_async(self.unannounced)(remove_member)
            for endpoint, listener in unfiltered.items():
                with self.subTest(endpoint):
                    self.assertEqual(await anext(listener), next_position)
            for endpoint, listener in filtered.items():
                with self.subTest(endpoint, filtered=True):
                    self.assertEqual(await anext(listener), "ended" if endpoint.startswith("SSE") else "hidden")

    async def test_the_session_of_a_deleted_account_ends_on_every_open_socket(self) -> None:
        async with AsyncExitStack() as stack:
            unfiltered, filtered = await self.opened(stack)
            idle = await stack.enter_async_context(ready(session=self.session))
            await idle.answer("{ cursor }")
            await sync_to_async(self.unannounced)(lambda: services.user.delete_user(actor=SYSTEM, user_id=self.user.pk))
            for endpoint, listener in (*unfiltered.items(), *filtered.items()):
                with self.subTest(endpoint):
                    self.assertEqual(await anext(listener), "ended" if endpoint.startswith("SSE") else "signed out")
            with self.subTest("a socket without a subscription"):
                self.assertEqual(await idle.close_code(), 4401)

    def unannounced(self, write: Any) -> Any:
        """Run `write` without its announcement, and return its result."""
        results = []
        self.write_unannounced(lambda: results.append(write()))
        return results[0]
