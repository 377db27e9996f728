"""A process of threads that change tasks at random, roll some changes back, and delay their commits.

It ends after a number of changes per thread, or when its standard input ends, so it never outlives a test.
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
ROLLED_BACK = 0.2  # share of all changes
RETRY_S = 0.1


class RolledBack(Exception):
    """Rolls a change back after its append."""


class Writer:
    def __init__(self, seed: str, project_id: int, task_id: int, delay_s: float) -> None:
        self.random = random.Random(seed)
        self.project_id = project_id
        self.task_id = task_id
        self.delay_s = delay_s

    def write(self, changes: int, is_over: threading.Event) -> None:
        """Commit `changes` changes. A change is repeated if the database ended before it confirmed the commit."""
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
        """Make a change. Returns the number of committed changes: 1, or 0 if it was rolled back."""
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
                        content = f"Remark {number}"
                        services.comment.add_comment(actor=SYSTEM, task_id=self.task_id, content=content, author="Ada")
                time.sleep(self.random.uniform(0, self.delay_s))
                if self.random.random() < ROLLED_BACK:
                    raise RolledBack
        except RolledBack:
            return 0
        return 1


def prepare(description: str) -> tuple[int, int]:
    """Create the project and the task that all threads change. Returns their ids."""
    from backend.projects import services
    from backend.projects.access import SYSTEM

    project = services.project.create_project(actor=SYSTEM, name="Garden")
    changes = {"title": "Weed", "description": description, "due_date": DUE}
    task = services.task.create_task(actor=SYSTEM, project_id=project.pk, changes=changes)
    return project.pk, task.pk


def write_and_die(task_id: int) -> None:
    """Change a task, and kill this process right after the commit: no tag is bumped, and no reader is notified."""
    from backend.projects import services
    from backend.projects.access import SYSTEM

    with transaction.atomic():
        transaction.on_commit(lambda: os.kill(os.getpid(), signal.SIGKILL))
        services.task.update_task(actor=SYSTEM, task_id=task_id, changes={"title": "The last words"})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--writers", type=int, default=1)
    parser.add_argument("--changes", type=int, default=0, help="per writer")
    parser.add_argument("--delay-s", type=float, default=0.0, help="longest delay between append and commit")
    parser.add_argument("--length", type=int, default=0, help="of the description of the changed task")
    parser.add_argument("--seed", default="")
    parser.add_argument("--dies", action="store_true", help="when its input ends: commit one more change, then SIGKILL")
    options = parser.parse_args()
    django.setup()
    project_id, task_id = prepare("x" * options.length)
    is_over = threading.Event()
    threads = [
        threading.Thread(
            target=Writer(f"{options.seed}-{number}", project_id, task_id, options.delay_s).write,
            args=[options.changes, is_over],
        )
        for number in range(options.writers)
    ]
    for thread in threads:
        thread.start()
    threading.Thread(target=lambda: (sys.stdin.read(), is_over.set()), daemon=True).start()
    for thread in threads:
        thread.join()
    if options.dies:
        is_over.wait()
        write_and_die(task_id)


if __name__ == "__main__":
    main()
