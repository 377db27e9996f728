"""The OpenAPI document and the page that displays it, for viewers with access."""

from functools import cache
from typing import Any

from django.contrib.auth.views import redirect_to_login
from django.http.response import HttpResponseBase
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.renderers import OpenApiJsonRenderer2
from drf_spectacular.views import SpectacularJSONAPIView, SpectacularSwaggerSplitView

from backend.projects.errors import InvalidCredential, NotSignedIn

from .base import PrivateView


@cache
def _document() -> dict[str, Any]:
    generated: dict[str, Any] = SchemaGenerator().get_schema(public=True)  # type: ignore[no-untyped-call]
    return generated


class OncePerProcess(SchemaGenerator):
    """Generates the document for the first request: it takes half a second, and is the same for all viewers."""

    def get_schema(self, request: Any = None, public: bool = False) -> dict[str, Any]:
        return _document()


class OpenApi(PrivateView, SpectacularJSONAPIView):
    generator_class = OncePerProcess
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
