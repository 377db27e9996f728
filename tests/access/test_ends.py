"""Whoever loses a right stops hearing at every door, at the next poll at the latest.

The writer is killed before it can announce anything, so nobody is notified.
"""

from __future__ import annotations

from contextlib import AsyncExitStack, aclosing
from typing import Any

from asgiref.sync import sync_to_async
from django.test import override_settings

from backend.projects import services
from backend.projects.access import SYSTEM
from backend.projects.models import Event, Role
from tests.access.hearing import Line, line
from tests.access.world import session_of
from tests.cases import CommittingCase
from tests.factories import MembershipFactory, ProjectFactory, TaskFactory, UserFactory
from tests.schema.sockets import ready

WIDE = ["Subscription.events", "WS /ws/notifications/", "SSE /events/"]
NARROWED = {
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
        """Something of which everybody in the project hears; its position."""
        if project == self.garden:
            services.comment.add_comment(actor=SYSTEM, task_id=self.task.pk, content="Done?", author="Ada")
        else:
            services.project.update_project(actor=SYSTEM, project_id=project.pk, changes={"name": "New"})
        return Event.head()

    async def opened(self, stack: AsyncExitStack) -> tuple[dict[str, Line], dict[str, Line]]:
        """A line at every door, those of everything and those of one project, on which the first event was heard."""
        cookie = {"cookie": f"sessionid={self.session}"}
        names = {"project": self.garden.pk, "task": self.task.pk}
        wide = {door: line(door, "", cookie) for door in WIDE}
        narrowed = {door: line(door, more.format(**names), cookie) for door, more in NARROWED.items()}
        for door, one in (*wide.items(), *narrowed.items()):
            await stack.enter_async_context(aclosing(one))
            self.assertEqual(await anext(one), 1, door)
        return wide, narrowed

    async def test_who_is_taken_out_of_a_project_hears_of_it_no_more(self) -> None:
        def take_out() -> int:
            services.membership.remove_member(actor=SYSTEM, project_id=self.garden.pk, user_id=self.user.pk)
            self.change(self.garden)
            return self.change(self.kitchen)

        async with AsyncExitStack() as stack:
            wide, narrowed = await self.opened(stack)
            heard_next = await sync_to_async(self.unannounced)(take_out)
            for door, one in wide.items():
                with self.subTest(door):
                    self.assertEqual(await anext(one), heard_next)
            for door, one in narrowed.items():
                with self.subTest(door, narrowed=True):
                    self.assertEqual(await anext(one), "ended" if door.startswith("SSE") else "hidden")

    async def test_the_session_of_a_deleted_account_ends_on_every_open_socket(self) -> None:
        async with AsyncExitStack() as stack:
            wide, narrowed = await self.opened(stack)
            silent = await stack.enter_async_context(ready(session=self.session))
            await silent.answer("{ cursor }")
            await sync_to_async(self.unannounced)(lambda: services.user.delete_user(actor=SYSTEM, user_id=self.user.pk))
            for door, one in (*wide.items(), *narrowed.items()):
                with self.subTest(door):
                    self.assertEqual(await anext(one), "ended" if door.startswith("SSE") else "signed out")
            with self.subTest("a socket on which nobody listens"):
                self.assertEqual(await silent.close_code(), 4401)

    def unannounced(self, write: Any) -> Any:
        told = []
        self.write_unannounced(lambda: told.append(write()))
        return told[0]
