"""A factory per model, with valid defaults. They record no events, as if their rows existed before the test."""

from datetime import timedelta

import factory
from django.contrib.auth.hashers import make_password
from django.utils import timezone
from factory.django import DjangoModelFactory

from backend.projects.authentication import digest_of
from backend.projects.models import (
    Comment,
    Invitation,
    Membership,
    Project,
    Role,
    Scope,
    SummaryReport,
    Task,
    Token,
    User,
)


class UserFactory(DjangoModelFactory[User]):
    class Meta:
        model = User

    username = factory.Sequence(lambda n: f"user{n}")
    email = factory.LazyAttribute(lambda user: f"{user.username}@example.org")
    password = factory.LazyFunction(lambda: make_password(None))


class ProjectFactory(DjangoModelFactory[Project]):
    class Meta:
        model = Project

    name = factory.Sequence(lambda n: f"Project {n}")


class MembershipFactory(DjangoModelFactory[Membership]):
    class Meta:
        model = Membership

    user = factory.SubFactory(UserFactory)
    project = factory.SubFactory(ProjectFactory)
    role = Role.EDITOR


class InvitationFactory(DjangoModelFactory[Invitation]):
    class Meta:
        model = Invitation

    user = factory.SubFactory(UserFactory)
    project = factory.SubFactory(ProjectFactory)
    role = Role.EDITOR
    invited_by = factory.SubFactory(UserFactory)
    created_at = factory.LazyFunction(timezone.now)
    expires_at = factory.LazyFunction(lambda: timezone.now() + timedelta(days=7))


class TaskFactory(DjangoModelFactory[Task]):
    class Meta:
        model = Task

    project = factory.SubFactory(ProjectFactory)
    title = factory.Sequence(lambda n: f"Task {n}")
    due_date = factory.LazyFunction(lambda: timezone.now() + timedelta(days=7))


class CommentFactory(DjangoModelFactory[Comment]):
    class Meta:
        model = Comment

    task = factory.SubFactory(TaskFactory)
    author = "Ada"
    content = "Looks good."


class SummaryReportFactory(DjangoModelFactory[SummaryReport]):
    class Meta:
        model = SummaryReport

    project = factory.SubFactory(ProjectFactory)
    date = factory.LazyFunction(lambda: timezone.now().date())
    figures = factory.LazyFunction(dict)
    generated_at = factory.LazyFunction(timezone.now)


def create_member_of_each_role(project: Project) -> tuple[User, User, User]:
    """Return an owner, an editor and a viewer of the project."""
    owner, editor, viewer = (MembershipFactory(project=project, role=role).user for role in Role)
    return owner, editor, viewer


class TokenFactory(DjangoModelFactory[Token]):
    """`secret` is the text that a client sends."""

    class Meta:
        model = Token

    class Params:
        secret = factory.Sequence(lambda n: f"tw_{n:043}")

    user = factory.SubFactory(UserFactory)
    name = factory.Sequence(lambda n: f"Script {n}")
    scope = Scope.WRITE
    digest = factory.LazyAttribute(lambda token: digest_of(token.secret))
