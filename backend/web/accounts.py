"""The pages on which people sign in and out and change their password, and how many tries they have."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv6Address, IPv6Network, ip_address
from math import ceil
from threading import BoundedSemaphore
from typing import Any

from axes.handlers.proxy import AxesProxyHandler
from axes.models import AccessAttempt
from django.conf import settings
from django.contrib import messages
from django.contrib.auth import authenticate, login, update_session_auth_hash
from django.contrib.auth.forms import AuthenticationForm, PasswordChangeForm
from django.contrib.auth.views import LoginView, PasswordChangeView, RedirectURLMixin, redirect_to_login
from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect, render
from django.urls import reverse, reverse_lazy
from django.utils import timezone
from django.utils.crypto import salted_hmac
from django.views import View

from backend.projects import services
from backend.projects.access import ANONYMOUS, Viewer
from backend.projects.authentication import address_of_request, viewer_of_browser
from backend.projects.models import User


# --- How many tries: what django-axes counts them by (`AXES_...` in the settings) ------------------------
def name_of_try(request: HttpRequest, credentials: dict[str, Any] | None) -> str:
    """A digest of the name, since it may be anything that somebody typed; the same in whichever case it is written.

    Upper case, as the database compares names: lower case would tell some apart that are one there.
    """
    name = (credentials or {}).get("username") or ""
    return salted_hmac("taskwire.sign_in_attempt", name.upper(), algorithm="sha256").hexdigest()


def address_of_try(request: HttpRequest) -> str | None:
    """The client's address; of IPv6 the network, since every home has 2^64 addresses. None where it is none."""
    try:
        address = ip_address(address_of_request(request).partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        address = address.ipv4_mapped or IPv6Network((address, 64), strict=False).network_address
    return str(address)


def _locked_for_s(request: HttpRequest) -> int:
    """Seconds until so many tries are forgotten that there is one left."""
    tries = AccessAttempt.objects.filter(
        username=name_of_try(request, request.axes_credentials),  # type: ignore[attr-defined]
        ip_address=address_of_try(request),
    )
    ends, counted = timezone.now(), 0
    for at, failures in tries.order_by("-attempt_time").values_list("attempt_time", "failures_since_start"):
        counted += failures
        if counted >= settings.AXES_FAILURE_LIMIT:
            ends = at + settings.AXES_COOLOFF_TIME
            break
    return max(ceil((ends - timezone.now()).total_seconds()), 1)


def locked_out(request: HttpRequest, *_: object) -> HttpResponse:
    """The sign-in page for who has no tries left: 429.

    django-axes gives more arguments, and under ASGI the wrong ones; `request` has all there is to know.
    """
    page = SignIn()
    page.setup(request)
    wait_s = _locked_for_s(request)
    context = page.get_context_data(form=SignInForm(request), locked_minutes=ceil(wait_s / 60))
    answer = render(request, page.template_name, context, status=429)
    answer["Retry-After"] = str(wait_s)
    return answer


# A password takes a while to check, and a connection to the database meanwhile: so many at a time in this process.
_checks = BoundedSemaphore(4)
_PATIENCE_S = 10


def _begin_try(request: HttpRequest, credentials: dict[str, Any]) -> None:
    """Wait for the turn of this name and address, and note on `request` whether it has tries left."""
    services.session.take_turn(key=f"{name_of_try(request, credentials)} {address_of_try(request)}")
    request.had_no_tries_left = not AxesProxyHandler.is_allowed(request, credentials)  # type: ignore[attr-defined]


# --- Pages -----------------------------------------------------------------------------------------------
class SignInForm(AuthenticationForm):
    error_messages = {
        **AuthenticationForm.error_messages,
        "invalid_login": "There is no account with this user name and password.",
    }

    def clean(self) -> dict[str, Any]:
        assert self.request is not None
        _begin_try(self.request, self.cleaned_data)
        return super().clean()


class PasswordForm(PasswordChangeForm):
    """The old password is a try like any other: whoever got hold of a session is not to guess it."""

    def __init__(self, *args: Any, request: HttpRequest, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.request = request

    def clean_old_password(self) -> str:
        old: str = self.cleaned_data["old_password"]
        credentials = {"username": self.user.get_username(), "password": old}
        _begin_try(self.request, credentials)
        if authenticate(self.request, **credentials) != self.user:
            raise ValidationError(self.error_messages["password_incorrect"], code="password_incorrect")
        return old


class PasswordChecking(View):
    """A page whose POST checks a password, in one transaction with what it records of that."""

    request: HttpRequest

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if not _checks.acquire(timeout=_PATIENCE_S):
            return HttpResponse("Too many people sign in at once.", status=503, headers={"Retry-After": "10"})
        try:
            with transaction.atomic():
                answer: HttpResponse = super().post(request, *args, **kwargs)  # type: ignore[misc]
                return answer
        finally:
            _checks.release()

    def record_failure(self, actor: Viewer, username: str) -> None:
        """What is tried while there are no tries left is not checked, and leaves no entry."""
        if not self.request.had_no_tries_left:  # type: ignore[attr-defined]
            services.session.record_failure(
                actor=actor,
                username=username,
                is_locked_out=self.request.axes_locked_out,  # type: ignore[attr-defined]
            )


class SignIn(PasswordChecking, LoginView):
    """The one door to GraphiQL, the docs and the admin. Who is signed in already sees where they may go."""

    authentication_form = SignInForm
    template_name = "sign_in.html"

    def form_valid(self, form: AuthenticationForm) -> HttpResponseRedirect:
        before, user = self.request.user, form.get_user()
        instead_of = before if isinstance(before, User) and before != user else None
        login(self.request, user)  # ends the session of anybody else
        services.session.record_sign_in(actor=viewer_of_browser(self.request), user=user, instead_of=instead_of)
        return HttpResponseRedirect(self.get_success_url())

    def form_invalid(self, form: AuthenticationForm) -> HttpResponse:
        if form.has_error(NON_FIELD_ERRORS, "invalid_login"):
            nobody = replace(ANONYMOUS, address=address_of_request(self.request))
            self.record_failure(nobody, form.cleaned_data["username"])
        return super().form_invalid(form)

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        context = super().get_context_data(**kwargs)
        user = self.request.user
        for_staff = context["next"].startswith(reverse("admin:index"))
        return {**context, "is_refused": for_staff and user.is_authenticated and not user.is_staff}


class SignOut(RedirectURLMixin, View):
    """Ends the session; then back to the sign-in page, and on to `next` for whoever signs in there."""

    http_method_names = ["post"]

    def post(self, request: HttpRequest) -> HttpResponse:
        if isinstance(request.user, User):
            services.session.sign_out(actor=viewer_of_browser(request), user=request.user, session=request.session)
        goal = self.get_redirect_url()
        return redirect_to_login(goal) if goal else redirect("sign-in")


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
        # Hashing takes a while, in which somebody may have taken rights from them: nothing but the password is stored.
        user = services.user.save_user(
            actor=viewer_of_browser(self.request), user=form.save(commit=False), fields=["password"]
        )
        update_session_auth_hash(self.request, user)
        said = "Your password is changed. Wherever else you were signed in, you no longer are; your tokens stay."
        messages.success(self.request, said)
        return HttpResponseRedirect(self.get_success_url())


def admin_sign_in(request: HttpRequest) -> HttpResponse:
    """The admin has a sign-in page of its own, which nobody is to meet."""
    return redirect_to_login(request.GET.get("next") or reverse("admin:index"))
