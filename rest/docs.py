"""The OpenAPI document and the page that displays it, for viewers with access."""

from django.contrib.auth.views import redirect_to_login
from django.http.response import HttpResponseBase
from drf_spectacular.renderers import OpenApiJsonRenderer2
from drf_spectacular.views import SpectacularJSONAPIView, SpectacularSwaggerSplitView

from backend.projects.errors import InvalidCredential, NotSignedIn

from .base import PrivateView


class OpenApi(PrivateView, SpectacularJSONAPIView):
    renderer_classes = [OpenApiJsonRenderer2]  # plain `application/json`


class Docs(PrivateView, SpectacularSwaggerSplitView):
    """Serves its script from a separate address, so that the Content-Security-Policy needs no exception."""

    http_method_names = ["get", "head"]
    url_name = "rest:openapi"
    template_name = "docs.html"

    def handle_exception(self, exc: Exception) -> HttpResponseBase:  # type: ignore[override]
        if isinstance(exc, NotSignedIn) and not isinstance(exc, InvalidCredential):
            return redirect_to_login(self.request.get_full_path())
        return super().handle_exception(exc)
