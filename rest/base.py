"""Base classes of the views: the query string, the body and the response headers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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

from backend.projects import access, prices
from backend.projects.access import Viewer
from backend.projects.budget import Balance, charge, cost_policy, give_back, rate_limit_headers, writes_policy
from backend.projects.cache.responses import declare_cacheable
from backend.projects.cache.validators import etag_matches
from backend.projects.cache.versions import versions_after_reading
from backend.projects.models import Scope
from backend.projects.resolvers.cached import CachedPage
from backend.projects.resolvers.page import Page
from backend.projects.rows import Row

from . import headers
from .openapi import Described
from .parsers import StrictJSONParser
from .serializers import PageParameters, Parameters


class PrivateView(APIView):
    """Prevents shared caches from storing responses, and private caches from reusing them without revalidation."""

    def finalize_response(self, request: Request, response: Response, *args: Any, **kwargs: Any) -> Response:
        response = super().finalize_response(request, response, *args, **kwargs)
        response.headers.setdefault("Cache-Control", "private, no-cache")
        patch_vary_headers(response, ["Accept", "Authorization", "Cookie"])
        return response


class View(PrivateView):
    """Each method calls one resolver or service. The declarations below drive validation and the OpenAPI document."""

    parser_classes = [StrictJSONParser]
    schema = Described()

    # The query string of GET. The other methods take no parameters.
    parameters: ClassVar[type[Parameters]] = Parameters
    # The body of POST, PUT and PATCH.
    body: ClassVar[type[serializers.Serializer[Any]]]
    # The object in a response, and whether GET returns a list of them.
    shape: ClassVar[type[serializers.Serializer[Any]]]
    is_list: ClassVar[bool] = False
    has_etag: ClassVar[bool] = False
    # Whether POST creates an object, and responds with it and its address.
    creates: ClassVar[bool] = True
    # The token scope that writing methods require.
    scope: ClassVar[Scope] = Scope.WRITE

    query: Parameters
    # The price of a write, in rows.
    write_price: ClassVar[int] = prices.WRITE
    balances: Sequence[Balance] = ()

    @property
    def price(self) -> int:
        """What a request costs, in rows (docs/cost.md)."""
        return 1 if self.request.method in SAFE_METHODS else self.write_price

    def initialize_request(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Request:
        """Set the length of a chunked body, which DRF would treat as empty."""
        if "CONTENT_LENGTH" not in request.META:
            request.META["CONTENT_LENGTH"] = str(len(request.body))
        return super().initialize_request(request, *args, **kwargs)

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if request.method not in SAFE_METHODS:
            # The service checks the scope too. This check precedes any read, so its error depends on the token alone.
            access.require_scope(self.viewer, self.scope)
        parameters = self.parameters if request.method in ("GET", "HEAD") else Parameters
        try:
            unquote_to_bytes(request.META["QUERY_STRING"]).decode()
        except UnicodeDecodeError:
            raise ParseError("The query string is no UTF-8.") from None
        self.query = parameters.parse(request.query_params)
        if request.auth is not None and self.viewer.may_see_anything and request.method != "OPTIONS":
            charges = [(cost_policy(), self.price)]
            if request.method not in SAFE_METHODS:
                charges.append((writes_policy(), 1))
            self.balances = charge(self.viewer, charges)

    def finalize_response(self, request: Request, response: Response, *args: Any, **kwargs: Any) -> Response:
        response = super().finalize_response(request, response, *args, **kwargs)
        if self.balances:
            unused = self.price - self._used(response)
            give_back(self.viewer, self.balances[0].policy, unused)
            for name, value in rate_limit_headers(self.balances).items():
                response.headers.setdefault(name, value)
        return response

    def _used(self, response: Response) -> int:
        """The part of the price that the response is worth: a page may have fewer rows than the request asks for."""
        return self.price

    @property
    def viewer(self) -> Viewer:
        return cast(Viewer, self.request.auth)

    def validated_body(self, *, partial: bool = False) -> Any:
        """The body, keyed by the domain's names. Raises ValidationError, ParseError, UnsupportedMediaType."""
        body = self.body(data=self.request.data, partial=partial)
        body.is_valid(raise_exception=True)
        return body.validated_data

    def version_to_match(self, current: Callable[[], int]) -> int | None:
        return headers.version_to_match(self.request, current)

    def object_response(self, row: Row, *, cursor: int, version: int | None = None) -> Response:
        """One object, or a 304. `cursor` has to be read before the row."""
        response_headers = {"X-Cursor": str(cursor)}
        if version is not None:
            response_headers["ETag"] = headers.etag_of(version)
        if "ETag" in response_headers and etag_matches(self.if_none_match, response_headers["ETag"]):
            return Response(status=304, headers=response_headers)
        return Response(row.as_json(), headers=response_headers)

    @property
    def if_none_match(self) -> str | None:
        return self.request.headers.get("If-None-Match")


class ListView(View):
    """GET returns a page, and the next page's address in `Link`."""

    is_list = True
    parameters = PageParameters
    # The domain's names of the page arguments, and their names in the query string.
    argument_names: ClassVar[dict[str, str]] = {"first": "page_size", "after": "cursor"}
    # The prices of `count` and `search`, in rows.
    count_price: ClassVar[int] = prices.COUNT
    search_price: ClassVar[int] = 0

    query: PageParameters

    @property
    def price(self) -> int:
        """The rows of the page, and a fixed price for the list, a search and a count."""
        if self.request.method not in SAFE_METHODS:
            return self.write_price
        price = self.query.page_size_asked + prices.LIST
        if "search" in self.query.validated_data:
            price += self.search_price
        return price + self.count_price if self.query.includes_count else price

    def _used(self, response: Response) -> int:
        if response.status_code == 304:
            return 1
        if self.request.method not in SAFE_METHODS or not isinstance(response.data, list):
            return self.price
        return self.price - self.query.page_size_asked + len(response.data)

    def list_response(self, cached: CachedPage[Any], *, count: Callable[[], int]) -> Response:
        """One page. `count` is called if the client requests the number of all rows."""
        tag_versions = cached.tag_versions
        response = self.uncached_list_response(cached.page, cursor=tag_versions.position, count=count)
        response.headers["ETag"] = cached.etag
        if self.query.includes_count:
            project_ids = None if cached.project_id is None else [cached.project_id]
            tag_versions = versions_after_reading(tag_versions, self.viewer, project_ids)
        declare_cacheable(self.request._request, self.viewer, tag_versions)
        return response

    def uncached_list_response(self, page: Page[Any], *, cursor: int, count: Callable[[], int]) -> Response:
        """One page of a list that is not cached. `cursor` has to be read before the page."""
        response_headers = {"X-Cursor": str(cursor)}
        if page.has_next:
            response_headers["Link"] = headers.link_to_next(self.request, page.page_cursor(page.rows[-1]))
        if self.query.includes_count:
            response_headers["X-Total-Count"] = str(count())
        return Response([row.as_json() for row in page.rows], headers=response_headers)


def created(row: Row, location: str) -> Response:
    return Response(row.as_json(), 201, headers={"Location": location})
