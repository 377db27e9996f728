"""Database calls of an operation, which is executed in an event loop."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar

from django.core.exceptions import SynchronousOnlyOperation
from django.test import SimpleTestCase

from backend.projects.access import SYSTEM
from backend.projects.models import Project
from schema.context import Context, run_in_thread
from tests.cases import Case

_variable: ContextVar[str] = ContextVar("variable", default="nothing")


def fail() -> None:
    raise ValueError("on purpose")


class CallTests(SimpleTestCase):
    context = Context(viewer=SYSTEM)

    def test_a_call_runs_outside_the_event_loop_in_the_context_of_its_operation(self) -> None:
        def read_variable() -> str:
            with self.assertRaises(RuntimeError):
                asyncio.get_running_loop()
            return _variable.get()

        async def operation() -> list[str]:
            _variable.set("something")
            return await asyncio.gather(*[self.context.in_database(read_variable) for _ in range(3)])

        self.assertEqual(run_in_thread(operation()), ["something"] * 3)
        self.assertEqual(_variable.get(), "nothing")

    def test_calls_are_made_in_order(self) -> None:
        made: list[int] = []

        async def operation() -> None:
            await asyncio.gather(*[self.context.in_database(made.append, number) for number in range(3)])
            await self.context.in_database(made.append, 3)

        run_in_thread(operation())
        self.assertEqual(made, [0, 1, 2, 3])

    def test_an_error_of_a_call_is_raised_at_its_await_and_does_not_affect_the_next_operation(self) -> None:
        async def operation() -> int:
            with self.assertRaisesMessage(ValueError, "on purpose"):
                await self.context.in_database(fail)
            return await self.context.in_database(int, "7")

        self.assertEqual(run_in_thread(operation()), 7)
        with self.assertRaisesMessage(ValueError, "on purpose"):
            run_in_thread(self.context.in_database(fail))
        self.assertEqual(run_in_thread(operation()), 7)

    def test_a_call_whose_field_was_cancelled_is_not_made(self) -> None:
        made: list[int] = []

        async def operation() -> None:
            calling = asyncio.ensure_future(self.context.in_database(made.append, 1))
            asyncio.get_running_loop().call_soon(calling.cancel)
            await asyncio.gather(calling, return_exceptions=True)

        run_in_thread(operation())
        self.assertEqual(made, [])


class DatabaseTests(Case):
    def test_async_code_reaches_the_database_only_by_a_call(self) -> None:
        async def operation() -> int:
            with self.assertRaises(SynchronousOnlyOperation):
                Project.objects.count()
            return await Context(viewer=SYSTEM).in_database(Project.objects.count)

        self.assertEqual(run_in_thread(operation()), 0)
