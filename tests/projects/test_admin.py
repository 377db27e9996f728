import json
from copy import copy
from typing import Any

from django.apps import apps
from django.contrib import admin
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import Group, Permission
from django.test import Client, override_settings
from django.urls import reverse

from backend.projects import services
from backend.projects.access import viewer_for
from backend.projects.errors import NotAllowed
from backend.projects.models import AuditEntry, Comment, Event, Membership, Project, Role, Task, Token, User
from tests.cases import Case
from tests.factories import (
    MembershipFactory,
    ProjectFactory,
    SummaryReportFactory,
    TaskFactory,
    TokenFactory,
    UserFactory,
)


class AdminCase(Case):
    @classmethod
    def setUpTestData(cls) -> None:
        cls.boss = UserFactory(is_staff=True, is_superuser=True, username="boss")

    def setUp(self) -> None:
        self.client.force_login(self.boss)

    def post(self, page: str, *args: Any, **data: Any) -> Any:
        return self.client.post(reverse(f"admin:projects_{page}", args=args), data, follow=True)

    def kinds(self) -> list[tuple[str, str]]:
        return list(Event.objects.order_by("position").values_list("kind", "actor_name"))

    def audit(self) -> list[tuple[str, str, str, str]]:
        """(action, actor, user, detail) of each entry, oldest first."""
        return list(AuditEntry.objects.order_by("id").values_list("action", "actor_name", "user_name", "detail"))


class ProjectAdminTests(AdminCase):
    def test_each_change_is_recorded_with_its_actor(self) -> None:
        self.post("project_add", name="Engine", description="")
        project = Project.objects.get()
        self.post("project_change", project.pk, name="Engine 2", description="Analytical")
        project.refresh_from_db()
        self.assertEqual((project.name, project.description, project.version), ("Engine 2", "Analytical", 2))
        self.post("project_delete", project.pk, post="yes")
        self.assertEqual(Project.objects.count(), 0)
        expected = ["access.changed", "project.created", "project.updated", "project.deleted"]
        self.assertEqual(self.kinds(), [(kind, "boss") for kind in expected])

    def test_deleting_several_projects_records_an_event_each(self) -> None:
        projects = ProjectFactory.create_batch(3)
        ids = [project.pk for project in projects]
        self.post("project_changelist", action="delete_selected", post="yes", _selected_action=ids)
        self.assertEqual((Project.objects.count(), self.events()), (0, ["project.deleted"] * 3))


class TaskAdminTests(AdminCase):
    def fields(self, **changes: Any) -> dict[str, Any]:
        return {"title": "Draw", "description": "", "status": "pending", "assignee": "", **changes} | {
            "due_date_0": "2027-03-01",
            "due_date_1": "09:30:00",
        }

    def test_each_change_is_recorded(self) -> None:
        member = MembershipFactory()
        self.post("task_add", **self.fields(project=member.project_id))
        task = Task.objects.get()
        self.post("task_change", task.pk, **self.fields(title="Drawn", assignee=member.user_id))
        task.refresh_from_db()
        self.assertEqual((task.title, task.assignee_id, task.version), ("Drawn", member.user_id, 2))
        self.post("task_change", task.pk, **self.fields(title="Drawn"))
        task.refresh_from_db()
        self.assertIsNone(task.assignee_id)
        self.post("task_delete", task.pk, post="yes")
        self.assertEqual(self.events(), ["task.created", "task.updated", "task.updated", "task.deleted"])

    def test_an_error_of_the_service_is_shown_and_changes_nothing(self) -> None:
        task = TaskFactory(title="Old")
        response = self.post("task_change", task.pk, **self.fields(title="New", assignee=UserFactory().pk))
        self.assertContains(response, "The assignee must be a member of the project.")
        task.refresh_from_db()
        self.assertEqual((task.title, self.events()), ("Old", []))

    def test_a_description_that_is_too_long_is_an_error_of_the_form(self) -> None:
        task = TaskFactory(title="Old", description="Short.")
        response = self.post("task_change", task.pk, **self.fields(title="New", description="x" * 65_537))
        self.assertContains(response, "at most 65536 characters")
        self.assertContains(response, "x" * 65_537)  # the form shows the refused text
        self.assertEqual((Task.objects.get().title, self.events()), ("Old", []))
        response = self.post("project_change", task.project_id, name="New", description="x" * 65_537)
        self.assertContains(response, "at most 65536 characters")
        response = self.post("comment_add", task=task.pk, content="x" * 16_385)
        self.assertContains(response, "at most 16384 characters")
        self.assertEqual((Comment.objects.count(), self.events()), (0, []))

    def test_other_fields_of_a_task_with_a_description_over_the_limit_can_change(self) -> None:
        text = "Weed the beds.\n" * 10_000
        task = TaskFactory(title="Old", description=text)
        # A browser ends each line of a text area with CR LF.
        self.post("task_change", task.pk, **self.fields(title="New", description=text.replace("\n", "\r\n")))
        task.refresh_from_db()
        self.assertEqual((task.title, task.description == text), ("New", True))
        self.assertEqual(json.loads(Event.objects.get().payload)["changes"], ["title", "due_date"])

    def test_a_comment_has_the_name_of_its_author(self) -> None:
        self.post("comment_add", task=TaskFactory().pk, content="Fine.")
        self.assertEqual(list(Comment.objects.values_list("author", "content")), [("boss", "Fine.")])
        self.assertEqual(self.events(), ["task.commented"])


class AccountAdminTests(AdminCase):
    def test_each_change_of_a_membership_takes_a_position(self) -> None:
        project, user = MembershipFactory(role=Role.OWNER).project, UserFactory()
        self.post("membership_add", project=project.pk, user=user.pk, role=Role.VIEWER)
        membership = Membership.objects.get(user=user)
        self.post("membership_change", membership.pk, role=Role.OWNER)
        membership.refresh_from_db()
        self.assertEqual(membership.role, Role.OWNER)
        self.post("membership_delete", membership.pk, post="yes")
        self.assertFalse(Membership.objects.filter(user=user).exists())
        self.assertEqual(self.kinds(), [("access.changed", "boss")] * 3)

    def test_the_refusal_of_a_bulk_deletion_is_shown_on_the_page(self) -> None:
        alone = MembershipFactory(role=Role.OWNER)
        page = reverse("admin:projects_membership_changelist")
        form = {"action": "delete_selected", "post": "yes", "_selected_action": [alone.pk]}
        self.assertContains(self.client.post(page, form, follow=True), "A project needs at least one owner")
        self.assertTrue(Membership.objects.filter(pk=alone.pk).exists())

    def test_deleting_an_account_unassigns_its_tasks_with_an_event_each(self) -> None:
        member = MembershipFactory()
        task = TaskFactory(project=member.project, assignee=member.user)
        self.post("user_delete", member.user_id, post="yes")
        task.refresh_from_db()
        self.assertEqual((task.assignee_id, task.version), (None, 2))
        self.assertEqual([kind for kind, _ in self.kinds()], ["access.changed", "task.updated"])

    def test_a_new_name_records_an_event_with_the_user_and_their_projects(self) -> None:
        member = MembershipFactory(user__username="ada")
        user = User.objects.get(username="ada")
        page = self.client.get(reverse("admin:projects_user_change", args=[user.pk]))
        form = page.context["adminform"].form
        data = {name: value for name, value in form.initial.items() if value not in (None, False)} | {
            "first_name": "Ada",
            "date_joined_0": "2026-01-01",
            "date_joined_1": "00:00:00",
        }
        del data["date_joined"]
        self.post("user_change", user.pk, **data)
        user.refresh_from_db()
        self.assertEqual(user.display_name, "Ada")
        self.assertEqual(Event.objects.get().payload, f'{{"users":[{user.pk}],"projects":[{member.project_id}]}}')


@override_settings(PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"])
class PasswordAdminTests(AdminCase):
    NEW = "correct horse battery"

    @classmethod
    def setUpTestData(cls) -> None:
        super().setUpTestData()
        cls.ada = UserFactory(username="ada", password=make_password("staple horse battery"))

    def set_password(self, user: User, **form: str) -> Any:
        page = reverse("admin:auth_user_password_change", args=[user.pk])
        return self.client.post(page, {"usable_password": "true", "set-password": "1", **form}, follow=True)

    def test_a_new_password_is_recorded_and_ends_other_sessions(self) -> None:
        other_client = Client()
        other_client.force_login(self.ada)
        response = self.set_password(self.ada, password1=self.NEW, password2=self.NEW)
        self.assertContains(response, "Password changed successfully.")
        self.assertEqual(self.audit(), [("password_changed", "boss", "ada", "")])
        self.assertEqual(self.kinds(), [("access.changed", "boss")])
        self.assertEqual(Event.objects.get().payload, f'{{"users":[{self.ada.pk}],"projects":[]}}')
        self.assertEqual(other_client.get("/projects/").status_code, 401)
        self.assertTrue(User.objects.get(pk=self.ada.pk).check_password(self.NEW))

    def test_changing_ones_own_password_keeps_the_current_session(self) -> None:
        self.set_password(self.boss, password1=self.NEW, password2=self.NEW)
        self.assertEqual(self.audit(), [("password_changed", "boss", "boss", "")])
        self.assertEqual(self.client.get("/projects/").status_code, 200)

    def test_removing_a_password_is_recorded(self) -> None:
        page = reverse("admin:auth_user_password_change", args=[self.ada.pk])
        self.client.post(page, {"usable_password": "false", "unset-password": "1"})
        self.assertFalse(User.objects.get(pk=self.ada.pk).has_usable_password())
        self.assertEqual(self.audit(), [("password_changed", "boss", "ada", "")])

    def test_a_refused_password_changes_nothing(self) -> None:
        with self.nothing_changes():
            response = self.set_password(self.ada, password1=self.NEW, password2="another")
            self.assertContains(response, "The two password fields didn")


@override_settings(PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"])
class EscalationTests(AdminCase):
    """A staff user with every permission on accounts and groups, who is not a superuser."""

    @classmethod
    def setUpTestData(cls) -> None:
        super().setUpTestData()
        cls.clerk = UserFactory(is_staff=True, username="clerk", password=make_password("staple horse battery"))
        accounts = Permission.objects.filter(content_type__model__in=["user", "group"])
        cls.clerk.user_permissions.set(accounts)
        cls.ada = UserFactory(username="ada")
        cls.group = Group.objects.create(name="readers")

    def setUp(self) -> None:
        self.client.force_login(self.clerk)

    def fields(self, user: User, **changes: Any) -> dict[str, Any]:
        names = ("username", "first_name", "last_name", "email")
        date = {"date_joined_0": "2026-01-01", "date_joined_1": "00:00:00"}
        return {name: getattr(user, name) for name in names} | {"is_active": "on"} | date | changes

    def permissions(self) -> list[Any]:
        users = User.objects.order_by("pk").values_list("username", "is_staff", "is_superuser", "password")
        return [*users, *(sorted(user.get_all_permissions()) for user in User.objects.order_by("pk"))]

    def test_staff_who_may_change_accounts_cannot_grant_permissions(self) -> None:
        before = self.permissions()
        permission = Permission.objects.get(codename="delete_project")
        for user in (self.clerk, self.ada):
            for field, value in (
                ("is_superuser", "on"),
                ("is_staff", "on"),
                ("groups", [self.group.pk]),
                ("user_permissions", [permission.pk]),
            ):
                with self.subTest(user.username, field=field):
                    self.post("user_change", user.pk, **self.fields(user, **{field: value}))
                    self.assertEqual(self.permissions(), before)

    def test_staff_who_may_change_accounts_can_change_other_fields(self) -> None:
        self.post("user_change", self.ada.pk, **self.fields(self.ada, first_name="Ada"))
        self.ada.refresh_from_db()
        self.assertEqual((self.ada.first_name, self.ada.is_active), ("Ada", True))
        data = self.fields(self.ada)
        del data["is_active"]
        self.post("user_change", self.ada.pk, **data)
        self.ada.refresh_from_db()
        self.assertFalse(self.ada.is_active)

    def test_only_superusers_may_change_the_account_of_a_superuser(self) -> None:
        with self.nothing_changes():
            change = self.post("user_change", self.boss.pk, **self.fields(self.boss, email="clerk@example.org"))
            delete = self.post("user_delete", self.boss.pk, post="yes")
            form = {"action": "delete_selected", "post": "yes", "_selected_action": [self.boss.pk]}
            bulk = self.client.post(reverse("admin:projects_user_changelist"), form)
            page = reverse("admin:auth_user_password_change", args=[self.boss.pk])
            new = "correct horse battery"
            data = {"usable_password": "true", "set-password": "1", "password1": new, "password2": new}
            password = self.client.post(page, data)
        self.assertEqual([response.status_code for response in (change, delete, bulk, password)], [403] * 4)
        self.client.force_login(UserFactory(is_staff=True, is_superuser=True))
        self.assertContains(self.client.post(page, data, follow=True), "Password changed successfully.")

    def test_a_new_account_has_no_permissions(self) -> None:
        new = "correct horse battery"
        form = {"usable_password": "true", "password1": new, "password2": new}
        self.post("user_add", username="eve", is_superuser="on", is_staff="on", **form)
        eve = User.objects.get(username="eve")
        self.assertEqual((eve.is_staff, eve.is_superuser), (False, False))

    def test_only_superusers_may_change_groups(self) -> None:
        self.clerk.groups.add(self.group)
        before = self.permissions()
        permission = Permission.objects.get(codename="delete_project")
        page = reverse("admin:auth_group_change", args=[self.group.pk])
        data = {"name": "readers", "permissions": [permission.pk]}
        self.assertEqual(self.client.post(page, data).status_code, 403)
        self.assertEqual(self.permissions(), before)
        self.client.force_login(self.boss)
        self.assertEqual(self.client.post(page, data).status_code, 302)
        self.assertIn("projects.delete_project", User.objects.get(pk=self.clerk.pk).get_all_permissions())

    def test_the_service_refuses_changes_that_the_page_does_not_offer(self) -> None:
        """The account may have become a superuser after the page checked it."""
        clerk = viewer_for(self.clerk)
        for user, flags in (
            (self.clerk, {"is_superuser": True}),
            (self.ada, {"is_staff": True}),
            (self.boss, {"is_staff": False}),
            (self.boss, {"password": "!"}),
            (User(username="eve", is_superuser=True), {}),
        ):
            with self.subTest(user.username, flags=flags), self.nothing_changes(), self.assertRaises(NotAllowed):
                changed = copy(user)
                for name, value in flags.items():
                    setattr(changed, name, value)
                services.user.save_user(actor=clerk, user=changed, fields=list(flags) or None)
        with self.nothing_changes(), self.assertRaises(NotAllowed):
            services.user.delete_user(actor=clerk, user_id=self.boss.pk)


class TokenAdminTests(AdminCase):
    @classmethod
    def setUpTestData(cls) -> None:
        super().setUpTestData()
        cls.token = TokenFactory(user__username="ada", name="nightly", scope="read")

    def test_the_tokens_of_all_users_are_shown_without_their_digests(self) -> None:
        for page in ("changelist", "change"):
            args = [self.token.pk] if page == "change" else []
            response = self.client.get(reverse(f"admin:projects_token_{page}", args=args))
            self.assertContains(response, "nightly")
            self.assertNotContains(response, self.token.digest)

    def test_tokens_cannot_be_created_or_changed(self) -> None:
        with self.nothing_changes():
            for page, args in (("add", []), ("change", [self.token.pk])):
                url = reverse(f"admin:projects_token_{page}", args=args)
                response = self.client.post(url, {"user": self.boss.pk, "name": "mine", "scope": "admin"})
                self.assertEqual(response.status_code, 403)

    def test_revoking_a_token_deletes_and_records_it(self) -> None:
        self.post("token_delete", self.token.pk, post="yes")
        self.assertFalse(Token.objects.exists())
        self.assertEqual(self.audit(), [("token_revoked", "boss", "ada", "nightly (read)")])
        self.assertEqual(self.kinds(), [("access.changed", "boss")])

    def test_revoking_several_tokens_records_each(self) -> None:
        other = TokenFactory(name="weekly", scope="admin", user__username="bob")
        ids = [self.token.pk, other.pk]
        self.post("token_changelist", action="delete_selected", post="yes", _selected_action=ids)
        self.assertEqual(
            self.audit(),
            [("token_revoked", "boss", "ada", "nightly (read)"), ("token_revoked", "boss", "bob", "weekly (admin)")],
        )


class AuditAdminTests(AdminCase):
    def test_entries_are_read_only(self) -> None:
        self.post("token_delete", TokenFactory(name="nightly").pk, post="yes")
        entry = AuditEntry.objects.get()
        self.assertContains(self.client.get(reverse("admin:projects_auditentry_changelist")), "nightly")
        with self.nothing_changes():
            for page, args in (("add", []), ("change", [entry.pk]), ("delete", [entry.pk])):
                url = reverse(f"admin:projects_auditentry_{page}", args=args)
                self.assertEqual(self.client.post(url, {"detail": "", "post": "yes"}).status_code, 403)


class PagesTests(AdminCase):
    def test_every_page_opens(self) -> None:
        TaskFactory()
        SummaryReportFactory()
        MembershipFactory()
        for model in (
            "project",
            "task",
            "comment",
            "membership",
            "user",
            "event",
            "reminder",
            "summaryreport",
            "token",
            "auditentry",
        ):
            with self.subTest(model):
                self.assertEqual(self.client.get(reverse(f"admin:projects_{model}_changelist")).status_code, 200)

    def test_the_counters_of_failed_sign_ins_have_no_pages(self) -> None:
        self.assertEqual(
            [model for model in apps.get_app_config("axes").get_models() if admin.site.is_registered(model)], []
        )
