"""The data of the benchmarks of lists."""

from __future__ import annotations

from datetime import UTC, datetime

from . import servers  # noqa: F401  first: it sets up Django

from backend.projects import access, services  # isort:skip
from backend.projects.models import Scope, User  # isort:skip


def fill(projects: int, tasks_each: int, scope: Scope) -> tuple[list[int], str]:
    """Create projects, then tasks in each of them in turn. Return the projects' ids and a token of an editor of all."""
    user = User(username="bench")
    user.set_unusable_password()
    services.user.save_user(actor=access.SYSTEM, user=user)
    project_ids = []
    for number in range(projects):
        project = services.project.create_project(actor=access.SYSTEM, name=f"Project {number}")
        services.membership.add_member(actor=access.SYSTEM, project_id=project.pk, username=user.username)
        project_ids.append(project.pk)
    for index in range(tasks_each):
        for project_id in project_ids:
            due_date = datetime(2030, 1 + index % 12, 1 + index % 28, 12, tzinfo=UTC)
            services.task.create_task(
                actor=access.SYSTEM,
                project_id=project_id,
                changes={"title": f"Build the part {index}", "description": "As drawn. " * 10, "due_date": due_date},
            )
    _, token = services.token.create_token(actor=access.SYSTEM, user_id=user.pk, name="bench", scope=scope, days=1)
    return project_ids, token
