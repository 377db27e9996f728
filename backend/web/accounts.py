"""Pages for signing in and out and for changing the password, and the limits of failed and successful attempts."""

from __future__ import annotations

from dataclasses import replace
from math import ceil
from typing import Any

from axes.handlers.proxy import AxesProxyHandler
from axes.models import AccessAttempt
from django.conf import settings
from django.contrib import messages
from django.contrib.auth import authenticate, login, update_session_auth_hash
from django.contrib.auth.forms import AuthenticationForm, PasswordChangeForm
from django.contrib.auth.mixins import LoginRequiredMixin
from django.contrib.auth.views import LoginView, PasswordChangeView, RedirectURLMixin, redirect_to_login
from django.core.exceptions import NON_FIELD_ERRORS, ObjectDoesNotExist, ValidationError
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect, render
from django.urls import reverse, reverse_lazy
from django.utils import timezone
from django.utils.crypto import salted_hmac
from django.views import View

from backend.projects import budget, resolvers, services
from backend.projects.access import ANONYMOUS, Viewer, parse_id
from backend.projects.authentication import address_of_request, network_of, viewer_of_browser
from backend.projects.errors import RateLimited
from backend.projects.models import User
from backend.projects.resolvers.page import PageRequest
from backend.projects.rows import parse_moment

from .attempts import bounds
from .password_slots import BUSY, RETRY_AFTER_S, slot_of


# --- Attempts: the keys by which django-axes counts them (`AXES_...` in the settings) --------------------
def attempt_name(request: HttpRequest, credentials: dict[str, Any] | None) -> str:
    """Return a digest of the user name, ignoring case: users may type anything into the field, even a password.

    Uses upper case, as the database does: some names that are equal there differ in lower case.
    """
    name = (credentials or {}).get("username") or ""
    return salted_hmac("taskwire.sign_in_attempt", name.upper(), algorithm="sha256").hexdigest()


def attempt_address(request: HttpRequest) -> str | None:
    """Return the client's address, for IPv6 its network. None if it is malformed."""
    return network_of(address_of_request(request))


def _locked_for_s(request: HttpRequest) -> int:
    """Return the seconds until enough attempts have expired to allow another one."""
    name, address = attempt_name(request, request.axes_credentials), attempt_address(request)  # type: ignore[attr-defined]
    now = ends = timezone.now()
    for where, limit in bounds(name, address):
        attempts, counted = AccessAttempt.objects.filter(where), 0
        for at, failures in attempts.order_by("-attempt_time").values_list("attempt_time", "failures_since_start"):
            counted += failures
            if counted >= limit:
                ends = max(ends, at + settings.AXES_COOLOFF_TIME)
                break
    return max(ceil((ends - now).total_seconds()), 1)


def locked_out(request: HttpRequest, *_: object) -> HttpResponse:
    """Return the sign-in page with status 429, for a user who has no attempts left.

    django-axes passes further arguments, some of them wrong under ASGI.
    """
    return _refused(request, _locked_for_s(request))


def _refused(request: HttpRequest, wait_s: int) -> HttpResponse:
    page = SignIn()
    page.setup(request)
    context = page.get_context_data(form=SignInForm(request), locked_minutes=ceil(wait_s / 60))
    response = render(request, page.template_name, context, status=429)
    response["Retry-After"] = str(wait_s)
    return response


class ClientLeft(Exception):
    """The client left before its password was checked."""


def _begin_attempt(request: HttpRequest, credentials: dict[str, Any]) -> None:
    """Wait for concurrent attempts from this address or with this name, then set `request.had_no_attempts_left`.

    Raises ClientLeft, and RateLimited if the name has no sign-ins left. Both come before the check of the password, so
    a refusal reveals nothing about it. The budget is also read for a name that belongs to no account.
    """
    name = attempt_name(request, credentials)
    services.session.serialize_attempts(keys=[f"address {attempt_address(request)}", f"name {name}"])
    if request.password_slot.has_left:  # type: ignore[attr-defined]
        raise ClientLeft
    request.had_no_attempts_left = not AxesProxyHandler.is_allowed(request, credentials)  # type: ignore[attr-defined]
    budget.require_for_name(name, budget.sign_ins_policy())


def _charge_success(request: HttpRequest, credentials: dict[str, Any]) -> None:
    """Count a correct password. Wrong ones do not count: otherwise anyone could lock out an account by its name."""
    budget.charge_name(attempt_name(request, credentials), budget.sign_ins_policy())


# --- Pages -----------------------------------------------------------------------------------------------
class SignInForm(AuthenticationForm):
    error_messages = {
        **AuthenticationForm.error_messages,
        "invalid_login": "There is no account with this user name and password.",
    }

    def clean(self) -> dict[str, Any]:
        assert self.request is not None
        _begin_attempt(self.request, self.cleaned_data)
        cleaned_data: dict[str, Any] = super().clean()
        if self.get_user() is not None:
            _charge_success(self.request, cleaned_data)
        return cleaned_data


class PasswordForm(PasswordChangeForm):
    """Counts a wrong old password as a failed attempt: a stolen session must not allow to guess the password."""

    def __init__(self, *args: Any, request: HttpRequest, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.request = request

    def clean_old_password(self) -> str:
        old: str = self.cleaned_data["old_password"]
        credentials = {"username": self.user.get_username(), "password": old}
        _begin_attempt(self.request, credentials)
        if authenticate(self.request, **credentials) != self.user:
            raise ValidationError(self.error_messages["password_incorrect"], code="password_incorrect")
        _charge_success(self.request, credentials)
        return old


def _client_closed_request() -> HttpResponse:
    """Return a response to end a request whose client has left. It is not sent."""
    return HttpResponse(status=499)


class PasswordChecking(View):
    """A page whose POST checks a password and records the result, in one transaction."""

    request: HttpRequest

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        slot = slot_of(request)
        if slot is None:
            return HttpResponse(BUSY, status=503, content_type="text/plain", headers={"Retry-After": RETRY_AFTER_S})
        if not slot.begin():
            return _client_closed_request()
        request.password_slot = slot  # type: ignore[attr-defined]
        try:
            with transaction.atomic():
                response: HttpResponse = super().post(request, *args, **kwargs)  # type: ignore[misc]
                return response
        except ClientLeft:
            return _client_closed_request()
        except RateLimited as error:
            return _refused(request, error.retry_after_s)
        finally:
            slot.end()
            slot.leave()

    def record_failure(self, actor: Viewer, username: str) -> None:
        """Record a failed attempt. An attempt during a lockout is not checked, so it is not recorded either."""
        if not self.request.had_no_attempts_left:  # type: ignore[attr-defined]
            services.session.record_failure(
                actor=actor,
                username=username,
                is_locked_out=self.request.axes_locked_out,  # type: ignore[attr-defined]
            )


class SignIn(PasswordChecking, LoginView):
    """The only sign-in page, for GraphiQL, the docs and the admin. Shows a signed-in user links to these."""

    authentication_form = SignInForm
    template_name = "sign_in.html"

    def form_valid(self, form: AuthenticationForm) -> HttpResponseRedirect:
        previous, user = self.request.user, form.get_user()
        instead_of = previous if isinstance(previous, User) and previous != user else None
        login(self.request, user)  # ends the session of another user
        services.session.record_sign_in(actor=viewer_of_browser(self.request), user=user, instead_of=instead_of)
        return HttpResponseRedirect(self.get_success_url())

    def form_invalid(self, form: AuthenticationForm) -> HttpResponse:
        if form.has_error(NON_FIELD_ERRORS, "invalid_login"):
            anonymous = replace(ANONYMOUS, address=address_of_request(self.request))
            self.record_failure(anonymous, form.cleaned_data["username"])
        return super().form_invalid(form)

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        context = super().get_context_data(**kwargs)
        user = self.request.user
        for_staff = context["next"].startswith(reverse("admin:index"))
        return {**context, "is_refused": for_staff and user.is_authenticated and not user.is_staff}


class SignOut(RedirectURLMixin, View):
    """Ends the session and redirects to the sign-in page, which leads on to `next`."""

    http_method_names = ["post"]

    def post(self, request: HttpRequest) -> HttpResponse:
        if isinstance(request.user, User):
            services.session.sign_out(actor=viewer_of_browser(request), user=request.user, session=request.session)
        next_url = self.get_redirect_url()
        return redirect_to_login(next_url) if next_url else redirect("sign-in")


class Password(PasswordChecking, PasswordChangeView):
    form_class = PasswordForm
    template_name = "password.html"
    success_url = reverse_lazy("sign-in")

    def get_form_kwargs(self) -> dict[str, Any]:
        return {**super().get_form_kwargs(), "request": self.request}

    def form_invalid(self, form: Any) -> HttpResponse:
        if form.has_error("old_password", "password_incorrect"):
            self.record_failure(viewer_of_browser(self.request), form.user.get_username())
        return super().form_invalid(form)

    def form_valid(self, form: Any) -> HttpResponse:
        # Hashing takes a while, and the user may lose permissions meanwhile: only the password is stored.
        user = services.user.save_user(
            actor=viewer_of_browser(self.request), user=form.save(commit=False), fields=["password"]
        )
        update_session_auth_hash(self.request, user)
        message = "Your password has been changed. You are signed out everywhere else; your tokens remain valid."
        messages.success(self.request, message)
        return HttpResponseRedirect(self.get_success_url())


class Invitations(LoginRequiredMixin, View):
    """Lists the user's open invitations. A POST has the id of one as `accept` or `decline`."""

    def get(self, request: HttpRequest) -> HttpResponse:
        page = resolvers.invitation.list_invitations(viewer_of_browser(request), page=PageRequest(default_size=50))
        invitations = [{**row.as_json(), "expires_at": parse_moment(row.expires_at)} for row in page.rows]
        return render(request, "invitations.html", {"invitations": invitations, "has_more": page.has_next})

    def post(self, request: HttpRequest) -> HttpResponse:
        actor, accepted = viewer_of_browser(request), request.POST.get("accept")
        try:
            if accepted is not None:
                services.invitation.accept_invitation(actor=actor, invitation_id=parse_id(accepted))
                messages.success(request, "You are a member of the project now.")
            else:
                declined = parse_id(request.POST.get("decline", ""))
                services.invitation.decline_invitation(actor=actor, invitation_id=declined)
                messages.success(request, "The invitation is declined.")
        except ObjectDoesNotExist as error:
            messages.error(request, str(error))
        except ValidationError as error:
            messages.error(request, " ".join(error.messages))
        return redirect("invitations")


def admin_sign_in(request: HttpRequest) -> HttpResponse:
    """Redirect to our sign-in page, which replaces the admin's own."""
    return redirect_to_login(request.GET.get("next") or reverse("admin:index"))
