"""Jobs in the threads of requests: their interruption, and the number that an account may run at once."""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from typing import Any

from asgiref.sync import sync_to_async
from django.db import InterfaceError, connection, transaction
from django.test import SimpleTestCase, override_settings

from backend.projects import threads
from backend.projects.errors import OperationTimedOut
from backend.projects.models import Project
from backend.projects.threads import ClientLeft, DatabaseThreads, Job, RequestThreads
from tests.cases import CommittingCase

TIMEOUT_S = 20


class TurnTests(SimpleTestCase):
    async def test_an_account_occupies_at_most_a_fifth_of_the_threads(self) -> None:
        pool = RequestThreads(10, "test")
        begun: list[int] = []
        both_begun, may_end = threading.Semaphore(0), threading.Event()

        def occupy(number: int) -> None:
            begun.append(number)
            both_begun.release()
            may_end.wait(TIMEOUT_S)

        jobs = [pool.start(Job("ada"), partial(occupy, number)) for number in range(5)]
        for _ in range(2):
            await sync_to_async(both_begun.acquire, thread_sensitive=False)()
        self.assertEqual([await pool.run(Job(account), lambda: "done") for account in ("bob", None)], ["done", "done"])
        self.assertEqual(len(begun), 2)

        may_end.set()
        await asyncio.gather(*jobs)
        self.assertEqual(sorted(begun), [0, 1, 2, 3, 4])
        await pool.close()

    async def test_a_waiting_job_does_not_begin_after_its_client_disconnects(self) -> None:
        pool = RequestThreads(2, "test")
        may_end = threading.Event()
        begun: list[str] = []
        first = pool.start(Job("ada"), partial(may_end.wait, TIMEOUT_S))
        waiting = asyncio.ensure_future(pool.run(Job("ada"), partial(begun.append, "second")))
        last = pool.start(Job("ada"), partial(begun.append, "third"))
        await pool.run(Job("bob"), int)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)

        may_end.set()
        await asyncio.gather(first, last)
        self.assertEqual(begun, ["third"])
        await pool.close()


class StatementTests(CommittingCase):
    def sleep(self) -> None:
        """Write a row, and wait in PostgreSQL."""
        with transaction.atomic():
            Project.objects.create(name="Garden")
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_sleep(300)")

    async def is_sleeping(self) -> bool:
        def count() -> Any:
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(300)' AND state = 'active'"
                    " AND datname = current_database()"
                )
                return cursor.fetchone()[0]

        return bool(await sync_to_async(count)())

    async def test_the_statement_of_a_disconnected_client_is_cancelled_and_its_transaction_rolled_back(self) -> None:
        job = Job()
        sleeping = threads.requests.start(job, self.sleep)
        while not await self.is_sleeping():
            self.assertFalse(sleeping.done())

        job.interrupt(ClientLeft())

        with self.assertRaises(ClientLeft):
            await asyncio.wait_for(sleeping, TIMEOUT_S)
        self.assertFalse(await self.is_sleeping())
        self.assertEqual(await threads.requests.call(Project.objects.count), 0)

    async def test_cancelling_a_caller_ends_its_job(self) -> None:
        calling = asyncio.ensure_future(threads.requests.call(self.sleep))
        while not await self.is_sleeping():
            self.assertFalse(calling.done())
        calling.cancel()
        while await self.is_sleeping():
            pass

    async def test_a_connection_with_a_cancellation_in_progress_is_not_used_again(self) -> None:
        def backend() -> Any:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_backend_pid()")
                return cursor.fetchone()[0]

        pool = RequestThreads(1, "test")
        before = await pool.call(backend)
        self.assertEqual(await pool.call(backend), before)
        job = Job()
        with job._lock, self.assertRaises(InterfaceError):  # held while a cancellation is sent
            await pool.run(job, backend)
        self.assertNotEqual(await pool.call(backend), before)
        await pool.close()

    @override_settings(OPERATION_TIMEOUT_S=0.3)
    async def test_a_job_ends_at_its_deadline(self) -> None:
        def many_statements() -> None:
            with connection.cursor() as cursor:
                while True:
                    cursor.execute("SELECT pg_sleep(0.01)")

        for function in (self.sleep, many_statements):
            with self.assertRaisesMessage(OperationTimedOut, "This took longer than 0.3 seconds."):
                await asyncio.wait_for(threads.requests.call(function), TIMEOUT_S)
        self.assertEqual(await threads.requests.call(Project.objects.count), 0)

    async def test_only_the_threads_of_requests_have_a_statement_timeout(self) -> None:
        def timeout() -> Any:
            with connection.cursor() as cursor:
                cursor.execute("SHOW statement_timeout")
                return cursor.fetchone()[0]

        other = DatabaseThreads(1, "test")
        self.assertEqual(await threads.requests.call(timeout), "9500ms")
        self.assertEqual(await other.call(timeout), "0")
        self.assertEqual(await sync_to_async(timeout)(), "0")
        await other.close()
