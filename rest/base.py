"""What every view has: the query string it knows, the body it takes, and the headers of its answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, cast
from urllib.parse import unquote_to_bytes

from django.http import HttpRequest
from django.utils.cache import patch_vary_headers
from rest_framework import serializers
from rest_framework.exceptions import ParseError
from rest_framework.permissions import SAFE_METHODS
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from backend.projects import access
from backend.projects.access import Viewer
from backend.projects.cache.responses import declare_cacheable
from backend.projects.cache.validators import etag_matches
from backend.projects.cache.versions import versions_after_reading
from backend.projects.models import Scope
from backend.projects.resolvers.cached import CachedPage
from backend.projects.rows import Row

from . import headers
from .openapi import Described
from .parsers import StrictJSONParser
from .serializers import PageParameters, Parameters


class PrivateView(APIView):
    """No cache between us and the client may show one person's answer to another, or an old one to anybody."""

    def finalize_response(self, request: Request, response: Response, *args: Any, **kwargs: Any) -> Response:
        response = super().finalize_response(request, response, *args, **kwargs)
        response.headers.setdefault("Cache-Control", "private, no-cache")
        patch_vary_headers(response, ["Accept", "Authorization", "Cookie"])
        return response


class View(PrivateView):
    """One resolver or service per method. What it declares is what it checks and what OpenAPI tells of it."""

    parser_classes = [StrictJSONParser]
    schema = Described()

    # The query string of GET; every other method knows no parameter.
    parameters: ClassVar[type[Parameters]] = Parameters
    # The body of POST, PUT and PATCH.
    body: ClassVar[type[serializers.Serializer[Any]]]
    # The object that it answers with, and whether GET answers with a list of them.
    shape: ClassVar[type[serializers.Serializer[Any]]]
    is_list: ClassVar[bool] = False
    has_etag: ClassVar[bool] = False
    # What a token must be for to change something here.
    scope: ClassVar[Scope] = Scope.WRITE

    query: Parameters

    def initialize_request(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Request:
        """A body that comes in chunks announces no length; DRF would take it for an empty one."""
        if "CONTENT_LENGTH" not in request.META:
            request.META["CONTENT_LENGTH"] = str(len(request.body))
        return super().initialize_request(request, *args, **kwargs)

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if request.method not in SAFE_METHODS:
            # The service asks too; here before anything is read, so that the answer is about the token alone.
            access.require_scope(self.viewer, self.scope)
        parameters = self.parameters if request.method in ("GET", "HEAD") else Parameters
        try:
            unquote_to_bytes(request.META["QUERY_STRING"]).decode()
        except UnicodeDecodeError:
            raise ParseError("The query string is no UTF-8.") from None
        self.query = parameters.checked(request.query_params)

    @property
    def viewer(self) -> Viewer:
        return cast(Viewer, self.request.auth)

    def given(self, *, partial: bool = False) -> Any:
        """The body, checked, under the domain's names. Raises ValidationError, ParseError, UnsupportedMediaType."""
        body = self.body(data=self.request.data, partial=partial)
        body.is_valid(raise_exception=True)
        return body.validated_data

    def version_to_match(self, current: Callable[[], int]) -> int | None:
        return headers.version_to_match(self.request, current)

    def detail(self, row: Row, *, cursor: int, version: int | None = None) -> Response:
        """One object; `cursor` was taken before it was read."""
        told = {"X-Cursor": str(cursor)}
        if version is not None:
            told["ETag"] = headers.etag_of(version)
        if "ETag" in told and etag_matches(self.if_none_match, told["ETag"]):
            return Response(status=304, headers=told)
        return Response(row.as_json(), headers=told)

    @property
    def if_none_match(self) -> str | None:
        return self.request.headers.get("If-None-Match")


class ListView(View):
    """GET is a page, newest first, and the way to the next."""

    is_list = True
    parameters = PageParameters
    # The domain knows a page by `first` and `after`.
    argument_names: ClassVar[dict[str, str]] = {"first": "page_size", "after": "cursor"}

    query: PageParameters

    def page(self, found: CachedPage[Any], *, count: Callable[[], int]) -> Response:
        """`count` is called where the client wants the number of all rows."""
        page = found.page
        tag_versions = found.tag_versions
        told = {"X-Cursor": str(found.tag_versions.position), "ETag": found.etag}
        if page.has_next:
            told["Link"] = headers.link_to_next(self.request, page.page_cursor(page.rows[-1]))
        if self.query.wants_count:
            told["X-Total-Count"] = str(count())
            narrowed = None if found.project_id is None else [found.project_id]
            tag_versions = versions_after_reading(tag_versions, self.viewer, narrowed)
        declare_cacheable(self.request._request, tag_versions)
        return Response([row.as_json() for row in page.rows], headers=told)


def created(row: Row, location: str) -> Response:
    return Response(row.as_json(), 201, headers={"Location": location})
