"""A process that writes: threads that change tasks at random, roll some of it back, and dawdle before they commit.

It ends after so many changes of each thread, or when its standard input does: so it never outlives a test.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import threading
import time
from datetime import UTC, datetime

import django
from django.db import InterfaceError, OperationalError, connection, transaction

DUE = datetime(2027, 3, 1, tzinfo=UTC)
ROLLED_BACK = 0.2  # of all changes
RETRY_S = 0.1


class RolledBack(Exception):
    """What a writer throws after its append."""


class Writer:
    def __init__(self, seed: str, project_id: int, task_id: int, delay_s: float) -> None:
        self.random = random.Random(seed)
        self.project_id = project_id
        self.task_id = task_id
        self.delay_s = delay_s

    def write(self, changes: int, is_over: threading.Event) -> None:
        """Commit `changes` changes; what the database's end has undone or left unanswered is done again."""
        try:
            while changes and not is_over.is_set():
                try:
                    changes -= self.change()
                except (OperationalError, InterfaceError):
                    connection.close()
                    is_over.wait(RETRY_S)
        finally:
            connection.close()

    def change(self) -> int:
        """How many changes were committed."""
        from backend.projects import services
        from backend.projects.access import SYSTEM

        number = self.random.randrange(10**9)
        try:
            with transaction.atomic():
                match self.random.choice(("create", "update", "update", "comment")):
                    case "create":
                        changes = {"title": f"Task {number}", "due_date": DUE}
                        services.task.create_task(actor=SYSTEM, project_id=self.project_id, changes=changes)
                    case "update":
                        changes = {"title": f"Title {number}"}
                        services.task.update_task(actor=SYSTEM, task_id=self.task_id, changes=changes)
                    case "comment":
                        said = f"Remark {number}"
                        services.comment.add_comment(actor=SYSTEM, task_id=self.task_id, content=said, author="Ada")
                time.sleep(self.random.uniform(0, self.delay_s))
                if self.random.random() < ROLLED_BACK:
                    raise RolledBack
        except RolledBack:
            return 0
        return 1


def prepare(description: str) -> tuple[int, int]:
    """A project and a task for all to write to."""
    from backend.projects import services
    from backend.projects.access import SYSTEM

    project = services.project.create_project(actor=SYSTEM, name="Garden")
    changes = {"title": "Weed", "description": description, "due_date": DUE}
    task = services.task.create_task(actor=SYSTEM, project_id=project.pk, changes=changes)
    return project.pk, task.pk


def write_and_die(task_id: int) -> None:
    """Change a task, and be killed as soon as that is committed: no tag is bumped, and nobody notified."""
    from backend.projects import services
    from backend.projects.access import SYSTEM

    with transaction.atomic():
        transaction.on_commit(lambda: os.kill(os.getpid(), signal.SIGKILL))
        services.task.update_task(actor=SYSTEM, task_id=task_id, changes={"title": "The last words"})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--writers", type=int, default=1)
    parser.add_argument("--changes", type=int, default=0, help="of each writer")
    parser.add_argument("--delay-s", type=float, default=0.0, help="at most, between append and commit")
    parser.add_argument("--length", type=int, default=0, help="of the description of the task that they change")
    parser.add_argument("--seed", default="")
    parser.add_argument(
        "--dies", action="store_true", help="once its input ends: right after the commit of one change more"
    )
    given = parser.parse_args()
    django.setup()
    project_id, task_id = prepare("x" * given.length)
    is_over = threading.Event()
    threads = [
        threading.Thread(
            target=Writer(f"{given.seed}-{number}", project_id, task_id, given.delay_s).write,
            args=[given.changes, is_over],
        )
        for number in range(given.writers)
    ]
    for thread in threads:
        thread.start()
    threading.Thread(target=lambda: (sys.stdin.read(), is_over.set()), daemon=True).start()
    for thread in threads:
        thread.join()
    if given.dies:
        is_over.wait()
        write_and_die(task_id)


if __name__ == "__main__":
    main()
