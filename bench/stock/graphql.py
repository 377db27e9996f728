"""strawberry-django as in its guide: types over the models, a list with the optimizer, a generated mutation."""

import strawberry
import strawberry_django
from strawberry import auto
from strawberry_django import mutations
from strawberry_django.optimizer import DjangoOptimizerExtension

from backend.projects import models


@strawberry_django.type(models.Project)
class Project:
    id: auto
    name: auto


@strawberry_django.type(models.Task, pagination=True)
class Task:
    id: auto
    title: auto
    description: auto
    status: auto
    due_date: auto
    created_at: auto
    version: auto
    project: Project


@strawberry_django.input(models.Task)
class TaskInput:
    project: auto
    title: auto
    description: auto
    due_date: auto


@strawberry.type
class Query:
    tasks: list[Task] = strawberry_django.field()


@strawberry.type
class Mutation:
    create_task: Task = mutations.create(TaskInput)


schema = strawberry.Schema(Query, Mutation, extensions=[DjangoOptimizerExtension])
