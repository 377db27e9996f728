from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

from backend.web.accounts import Invitations, Password, SignIn, SignOut, admin_sign_in
from backend.web.health import healthz
from schema.schema import schema
from schema.views import GraphQLView

urlpatterns = [
    path("graphql/", GraphQLView.as_view(schema=schema), name="graphql"),
    path("accounts/sign-in/", SignIn.as_view(), name="sign-in"),
    path("accounts/sign-out/", SignOut.as_view(), name="sign-out"),
    path("accounts/password/", Password.as_view(), name="password"),
    path("accounts/invitations/", Invitations.as_view(), name="invitations"),
    # Before the admin's own views, which neither count failed sign-ins nor write to the audit log.
    path("admin/login/", admin_sign_in),
    path("admin/logout/", SignOut.as_view()),
    path("admin/password_change/", RedirectView.as_view(pattern_name="password")),
    path("admin/", admin.site.urls),
    path("healthz", healthz, name="healthz"),
    path("", include("rest.urls")),
]

handler400 = "backend.web.errors.bad_request"
handler404 = "backend.web.errors.not_found"
handler500 = "backend.web.errors.server_error"
