"""The admin writes through the services: a change made here is validated, journaled and delivered like any other."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from copy import copy
from functools import partial
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.forms import AdminPasswordChangeForm
from django.contrib.auth.models import Group
from django.core.exceptions import ObjectDoesNotExist, ValidationError
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponseRedirect

from . import services
from .access import Viewer
from .authentication import viewer_of_browser
from .models import (
    AuditEntry,
    Comment,
    Event,
    Invitation,
    Membership,
    Project,
    Reminder,
    SummaryReport,
    Task,
    Token,
    User,
)
from .services.validation import validate_length


def _actor(request: HttpRequest) -> Viewer:
    return viewer_of_browser(request)


def _changes(form: Any) -> dict[str, Any]:
    return {name: form.cleaned_data[name] for name in form.changed_data if name in form.cleaned_data}


class ServiceAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Shows a service's errors as messages on the page. Bulk deletion deletes row by row.

    Django wraps the admin's views in a transaction, which would hold the journal's lock while the admin's log is
    written. Here a change that the journal records runs in the service's transaction only.
    """

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        return self._show_errors(request, lambda: self._changeform_view(request, object_id, form_url, extra_context))  # type: ignore[attr-defined]

    def delete_view(self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None) -> Any:
        return self._show_errors(request, lambda: self._delete_view(request, object_id, extra_context))  # type: ignore[attr-defined]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        return self._show_errors(request, lambda: super(ServiceAdmin, self).changelist_view(request, extra_context))

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        for row in queryset.order_by("pk"):
            with suppress(ObjectDoesNotExist):  # already deleted
                self.delete_model(request, row)

    def _show_errors(self, request: HttpRequest, view: Callable[[], Any]) -> Any:
        try:
            return view()
        except ValidationError as error:
            self.message_user(request, " ".join(error.messages), messages.ERROR)
        except ObjectDoesNotExist as error:
            self.message_user(request, str(error), messages.ERROR)
        return HttpResponseRedirect(request.get_full_path())


class ReadOnlyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


class TextForm(forms.ModelForm):  # type: ignore[type-arg]
    """Checks the length of a text that has changed. A difference in line ends or surrounding space is no change."""

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        for name in ("description", "content"):
            if name in cleaned:
                cleaned[name] = self._text(name, cleaned[name])
        return cleaned

    def _text(self, name: str, text: str) -> str:
        before: str = self.initial.get(name) or ""
        if text.splitlines() == before.strip().splitlines():
            return before
        try:
            validate_length(name, text)
        except ValidationError as error:
            self.add_error(name, error)
        return text


@admin.register(Project)
class ProjectAdmin(ServiceAdmin):
    list_display = ("id", "name", "version", "updated_at")
    search_fields = ("name", "description")
    form = TextForm
    fields = ("name", "description")

    def save_model(self, request: HttpRequest, obj: Project, form: Any, change: bool) -> None:
        actor = _actor(request)
        if change:
            services.project.update_project(actor=actor, project_id=obj.pk, changes=_changes(form))  # type: ignore[arg-type]
        else:
            obj.pk = services.project.create_project(actor=actor, name=obj.name, description=obj.description).pk

    def delete_model(self, request: HttpRequest, obj: Project) -> None:
        services.project.delete_project(actor=_actor(request), project_id=obj.pk)


@admin.register(Task)
class TaskAdmin(ServiceAdmin):
    list_display = ("id", "title", "project", "status", "assignee", "due_date")
    list_filter = ("status",)
    list_select_related = ("project", "assignee")
    search_fields = ("title", "description")
    autocomplete_fields = ("project", "assignee")
    form = TextForm
    fields = ("project", "title", "description", "status", "assignee", "due_date")

    def get_readonly_fields(self, request: HttpRequest, obj: Task | None = None) -> tuple[str, ...]:
        return ("project",) if obj else ()

    def save_model(self, request: HttpRequest, obj: Task, form: Any, change: bool) -> None:
        changes = _changes(form)
        changes.pop("project", None)
        if "assignee" in changes:
            del changes["assignee"]
            changes["assignee_id"] = obj.assignee_id
        actor = _actor(request)
        if change:
            services.task.update_task(actor=actor, task_id=obj.pk, changes=changes)  # type: ignore[arg-type]
        else:
            obj.pk = services.task.create_task(actor=actor, project_id=obj.project_id, changes=changes).pk  # type: ignore[arg-type]

    def delete_model(self, request: HttpRequest, obj: Task) -> None:
        services.task.delete_task(actor=_actor(request), task_id=obj.pk)


@admin.register(Comment)
class CommentAdmin(ServiceAdmin):
    """Comments can be added, under the user's own name, but not changed or deleted."""

    list_display = ("id", "task", "author", "created_at")
    list_select_related = ("task",)
    autocomplete_fields = ("task",)
    form = TextForm
    fields = ("task", "content")

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: Comment, form: Any, change: bool) -> None:
        added = services.comment.add_comment(actor=_actor(request), task_id=obj.task_id, content=obj.content)
        obj.pk, obj.author = added.pk, added.author


@admin.register(Membership)
class MembershipAdmin(ServiceAdmin):
    list_display = ("id", "project", "user", "role")
    list_filter = ("role",)
    list_select_related = ("project", "user")
    autocomplete_fields = ("project", "user")

    def get_readonly_fields(self, request: HttpRequest, obj: Membership | None = None) -> tuple[str, ...]:
        return ("project", "user") if obj else ()

    def save_model(self, request: HttpRequest, obj: Membership, form: Any, change: bool) -> None:
        actor = _actor(request)
        if change:
            services.membership.change_role(actor=actor, project_id=obj.project_id, user_id=obj.user_id, role=obj.role)
        else:
            obj.pk = services.membership.add_member(
                actor=actor, project_id=obj.project_id, username=obj.user.username, role=obj.role
            ).pk

    def delete_model(self, request: HttpRequest, obj: Membership) -> None:
        services.membership.remove_member(actor=_actor(request), project_id=obj.project_id, user_id=obj.user_id)


@admin.register(Invitation)
class InvitationAdmin(ReadOnlyAdmin):
    list_display = ("id", "project", "user", "role", "invited_by", "expires_at")
    list_filter = ("role",)
    list_select_related = ("project", "user", "invited_by")


class _PasswordForm(AdminPasswordChangeForm):  # type: ignore[type-arg]
    def __init__(self, actor: Viewer, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.actor = actor

    def save(self, commit: bool = True) -> User:
        return services.user.save_user(actor=self.actor, user=super().save(commit=False), fields=["password"])


def _is_superuser(request: HttpRequest) -> bool:
    return isinstance(request.user, User) and request.user.is_superuser


@admin.register(User)
class UserAdmin(ServiceAdmin, DjangoUserAdmin):  # type: ignore[type-arg]
    """Only superusers may grant permissions, and change or delete a superuser's account.

    Otherwise staff who may change accounts could make themselves superusers, or sign in as one.
    """

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> tuple[str, ...]:
        return () if _is_superuser(request) else ("is_staff", "is_superuser", "groups", "user_permissions")

    def has_change_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        return self._may_edit(request, obj) and super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        return self._may_edit(request, obj) and super().has_delete_permission(request, obj)

    @staticmethod
    def _may_edit(request: HttpRequest, obj: User | None) -> bool:
        return obj is None or not obj.is_superuser or _is_superuser(request)

    def save_model(self, request: HttpRequest, obj: User, form: Any, change: bool) -> None:
        columns = {field.name for field in User._meta.concrete_fields}
        changed = columns.intersection(form.changed_data) if change else None
        services.user.save_user(actor=_actor(request), user=obj, fields=changed)

    def delete_model(self, request: HttpRequest, obj: User) -> None:
        services.user.delete_user(actor=_actor(request), user_id=obj.pk)

    def user_change_password(self, request: HttpRequest, id: str, form_url: str = "") -> Any:
        # Django's view reads the form class from the admin, which all requests share, and gives the form no request.
        admin_for_request = copy(self)
        admin_for_request.change_password_form = partial(_PasswordForm, _actor(request))
        return self._show_errors(
            request, lambda: super(UserAdmin, admin_for_request).user_change_password(request, id, form_url)
        )


admin.site.unregister(Group)


@admin.register(Group)
class GroupAdmin(DjangoGroupAdmin):
    """Only superusers may change a group, since it grants permissions to its users."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return _is_superuser(request)

    def has_change_permission(self, request: HttpRequest, obj: Group | None = None) -> bool:
        return _is_superuser(request)

    def has_delete_permission(self, request: HttpRequest, obj: Group | None = None) -> bool:
        return _is_superuser(request)


@admin.register(Token)
class TokenAdmin(ServiceAdmin):
    """Lists and revokes the tokens of all users. It cannot show a secret: only the digest is stored."""

    list_display = ("id", "user", "name", "scope", "created_at", "expires_at", "last_used_at")
    list_filter = ("scope",)
    list_select_related = ("user",)
    search_fields = ("name", "user__username")
    fields = ("user", "name", "scope", "created_at", "expires_at", "last_used_at")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def delete_model(self, request: HttpRequest, obj: Token) -> None:
        services.token.revoke_token(actor=_actor(request), token_id=obj.pk)


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnlyAdmin):
    list_display = ("id", "at", "action", "actor_name", "address", "user_name", "project_id", "detail")
    list_filter = ("action",)
    search_fields = ("actor_name", "user_name", "address")


@admin.register(Event)
class EventAdmin(ReadOnlyAdmin):
    list_display = ("position", "kind", "project_id", "task_id", "actor_name", "at")
    list_filter = ("kind",)


@admin.register(Reminder)
class ReminderAdmin(ReadOnlyAdmin):
    list_display = ("id", "task", "recipient", "due_date", "sent_at")
    list_select_related = ("task",)


@admin.register(SummaryReport)
class SummaryReportAdmin(ReadOnlyAdmin):
    list_display = ("id", "project", "date", "generated_at")
    list_select_related = ("project",)
