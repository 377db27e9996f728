"""Lists every endpoint, from the schema, the URL resolver and the routes of the sockets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from django.urls import URLResolver, get_resolver
from graphql import (
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLObjectType,
    get_named_type,
    is_composite_type,
    is_required_argument,
)

from backend.asgi import sockets
from backend.web.origin import refuse
from rest.streams import EventStreamRenderer
from schema.schema import schema

GRAPH = schema._schema

# Arguments and parameters for pages, order and kinds of events. None of them names a row.
NOT_FILTERS = {"first", "after", "last", "before", "order", "kinds", "page_size", "cursor", "ordering"}
# Endpoints whose parameters no class declares.
FREE_PARAMETERS = {"GET /graphql/", "WS /ws/notifications/"}

ADMIN = "/admin/*"


def all_endpoints() -> set[str]:
    return {*graphql_endpoints(), *http_endpoints(), *socket_endpoints()}


# --- GraphQL ---------------------------------------------------------------------------------------------
def _is_wrapper(name: str) -> bool:
    """Return whether the type only wraps a list or a result."""
    return name.startswith("__") or name.endswith(("Connection", "Edge", "PageInfo", "EventPage", "OperationInfo"))


def graphql_types() -> Iterator[GraphQLObjectType | GraphQLInterfaceType]:
    for name, kind in GRAPH.type_map.items():
        if isinstance(kind, GraphQLObjectType | GraphQLInterfaceType) and not _is_wrapper(name):
            yield kind


def graphql_endpoints() -> Iterator[str]:
    """Yield every root field, also with each filter argument; every field that returns an object; every count."""
    roots = {GRAPH.query_type, GRAPH.mutation_type, GRAPH.subscription_type}
    for kind in graphql_types():
        inherited = {name for interface in kind.interfaces for name in interface.fields}
        for name, field in kind.fields.items():
            if name in inherited or (kind not in roots and not is_composite_type(get_named_type(field.type))):
                continue
            endpoint = f"{kind.name}.{name}"
            yield endpoint
            if get_named_type(field.type).name.endswith("Connection"):
                yield f"{endpoint}.totalCount"
            if kind in roots:
                yield from (f"{endpoint}({argument})" for argument in _filters(field))


def _filters(field: GraphQLField) -> Iterator[str]:
    for name, argument in field.args.items():
        kind = get_named_type(argument.type)
        if name in NOT_FILTERS or is_required_argument(argument):
            continue
        if isinstance(kind, GraphQLInputObjectType):
            yield from kind.fields
        else:
            yield name


# --- HTTP ------------------------------------------------------------------------------------------------
def callbacks() -> dict[str, Any]:
    """Return the callback of each path. Parameters of a path are written `<name>`."""
    found: dict[str, Any] = {}
    for path, callback in _routes(get_resolver().url_patterns, "/"):
        found.setdefault(path, callback)  # Django uses the first of two equal paths
    return found


def _routes(patterns: list[Any], before: str) -> Iterator[tuple[str, Any]]:
    for pattern in patterns:
        path = before + re.sub(r"<\w+:", "<", str(pattern.pattern))
        if isinstance(pattern, URLResolver):
            yield from _routes(pattern.url_patterns, path)
        else:
            yield path, pattern.callback


def rest_views() -> Iterator[tuple[str, Any]]:
    return ((path, callback.cls) for path, callback in callbacks().items() if hasattr(callback, "cls"))


def rest_methods(view: Any) -> list[str]:
    return [name.upper() for name in ("get", "post", "put", "patch", "delete") if hasattr(view, name)]


def http_endpoints() -> Iterator[str]:
    for path, view in rest_views():
        yield from (f"{method} {path}" for method in rest_methods(view))
        parameters = getattr(view, "parameters", dict)()
        filters = set(getattr(parameters, "fields", {})) - NOT_FILTERS
        if EventStreamRenderer in view.renderer_classes:
            yield f"SSE {path}"
            yield from (f"SSE {path}?{name}=" for name in filters)
            filters.add("after")  # with it a GET returns events, without it only the cursor
        yield from (f"GET {path}?{name}=" for name in filters)
    yield "OPTIONS"
    for path, callback in callbacks().items():
        if not hasattr(callback, "cls"):
            yield from _page_endpoints(path, callback)


def _page_endpoints(path: str, callback: Any) -> list[str]:
    view = getattr(callback, "view_class", None)
    if path == "/graphql/":
        return [f"GET {path}", f"POST {path}"]
    if view is not None and view.__module__ == "backend.web.accounts":
        # The methods that a form can send. Django's PUT is an alias of POST.
        return [f"{name.upper()} {path}" for name in ("get", "post") if hasattr(view, name)]
    if path.startswith("/admin/") and path not in ("/admin/", "/admin/password_change/"):
        return [f"GET {ADMIN}", f"POST {ADMIN}"]
    return [f"GET {path}"]


def admin_paths() -> list[str]:
    """Return one path for every admin page that has no endpoint of its own. The ids in it may not exist."""
    paths = {path for path, callback in callbacks().items() if f"GET {ADMIN}" in _page_endpoints(path, callback)}
    paths = {re.sub(r"\^?\(\?P<app_label>(\w+).*\)/\$", r"\1/", path) for path in paths}
    return sorted({re.sub(r"<\w+>|\(\?P<url>\.\*\)\$", "1", path) for path in paths})


# --- Sockets ---------------------------------------------------------------------------------------------
def socket_endpoints() -> Iterator[str]:
    routes = [route for route in sockets.application.application.routes if route.callback is not refuse]
    return (f"WS /{route.pattern}" for route in routes)
