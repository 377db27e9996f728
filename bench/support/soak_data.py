"""The accounts and rows of the soak: `python -m bench.support.soak_data VIEWERS` prints tokens and ids as JSON.

It is a process of its own because it uses other servers than the process that runs the benchmarks.
"""

from __future__ import annotations

import json
import sys
from datetime import timedelta

from . import servers  # noqa: F401  first: it sets up Django

from django.core.management import call_command  # isort:skip
from django.utils import timezone  # isort:skip

from backend.projects import access, services  # isort:skip
from backend.projects.models import Scope, User  # isort:skip

PROJECTS, TASKS_EACH = 3, 100


def main(viewers: int) -> None:
    call_command("migrate", verbosity=0)
    users = []
    for number in range(viewers):
        user = User(username=f"viewer{number}", email=f"viewer{number}@example.org")
        user.set_unusable_password()
        services.user.save_user(actor=access.SYSTEM, user=user)
        users.append(user)
    projects = [services.project.create_project(actor=access.SYSTEM, name=f"Project {n}").pk for n in range(PROJECTS)]
    for project_id in projects:
        for user in users:
            services.membership.add_member(actor=access.SYSTEM, project_id=project_id, username=user.username)
    tasks = []
    for number in range(TASKS_EACH):
        for project_id in projects:
            changes = {
                "title": f"Weed the bed {number}",
                "description": "As drawn. " * 10,
                "due_date": timezone.now() + timedelta(hours=1, minutes=number),  # due soon, so each has a reminder
                "assignee_id": users[number % viewers].pk,
            }
            task = services.task.create_task(actor=access.SYSTEM, project_id=project_id, changes=changes)
            tasks.append(task.pk)
    tokens = [
        services.token.create_token(actor=access.SYSTEM, user_id=user.pk, name="soak", scope=Scope.WRITE, days=1)[1]
        for user in users
    ]
    print(json.dumps({"tokens": tokens, "projects": projects, "tasks": tasks}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
