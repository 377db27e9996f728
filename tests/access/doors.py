"""Every door that there is, found where it is made: the schema, the URL resolver, the routes of the sockets."""

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

# What cuts a list into pages, puts it in order, or tells sorts of events apart: none of it names a row.
NOT_NARROWING = {"first", "after", "last", "before", "order", "kinds", "page_size", "cursor", "ordering"}
# How these are asked is written in no class.
FREE_PARAMETERS = {"GET /graphql/", "WS /ws/notifications/"}

ADMIN = "/admin/*"


def all_doors() -> set[str]:
    return {*graphql_doors(), *http_doors(), *socket_doors()}


# --- GraphQL ---------------------------------------------------------------------------------------------
def _is_plumbing(name: str) -> bool:
    """What a list or an answer is wrapped in."""
    return name.startswith("__") or name.endswith(("Connection", "Edge", "PageInfo", "EventPage", "OperationInfo"))


def graphql_types() -> Iterator[GraphQLObjectType | GraphQLInterfaceType]:
    for name, kind in GRAPH.type_map.items():
        if isinstance(kind, GraphQLObjectType | GraphQLInterfaceType) and not _is_plumbing(name):
            yield kind


def graphql_doors() -> Iterator[str]:
    """Every root field, with each argument that narrows it; every field with an object behind it; every count."""
    roots = {GRAPH.query_type, GRAPH.mutation_type, GRAPH.subscription_type}
    for kind in graphql_types():
        inherited = {name for interface in kind.interfaces for name in interface.fields}
        for name, field in kind.fields.items():
            if name in inherited or (kind not in roots and not is_composite_type(get_named_type(field.type))):
                continue
            door = f"{kind.name}.{name}"
            yield door
            if get_named_type(field.type).name.endswith("Connection"):
                yield f"{door}.totalCount"
            if kind in roots:
                yield from (f"{door}({argument})" for argument in _narrowing(field))


def _narrowing(field: GraphQLField) -> Iterator[str]:
    for name, argument in field.args.items():
        kind = get_named_type(argument.type)
        if name in NOT_NARROWING or is_required_argument(argument):
            continue
        if isinstance(kind, GraphQLInputObjectType):
            yield from kind.fields
        else:
            yield name


# --- HTTP ------------------------------------------------------------------------------------------------
def addresses() -> dict[str, Any]:
    """What answers at each path; a parameter of it is written `<name>`."""
    found: dict[str, Any] = {}
    for path, callback in _routes(get_resolver().url_patterns, "/"):
        found.setdefault(path, callback)  # of two with the same path the first one answers
    return found


def _routes(patterns: list[Any], before: str) -> Iterator[tuple[str, Any]]:
    for pattern in patterns:
        path = before + re.sub(r"<\w+:", "<", str(pattern.pattern))
        if isinstance(pattern, URLResolver):
            yield from _routes(pattern.url_patterns, path)
        else:
            yield path, pattern.callback


def rest_views() -> Iterator[tuple[str, Any]]:
    return ((path, callback.cls) for path, callback in addresses().items() if hasattr(callback, "cls"))


def rest_methods(view: Any) -> list[str]:
    return [name.upper() for name in ("get", "post", "put", "patch", "delete") if hasattr(view, name)]


def http_doors() -> Iterator[str]:
    for path, view in rest_views():
        yield from (f"{method} {path}" for method in rest_methods(view))
        parameters = getattr(view, "parameters", dict)()
        narrowing = set(getattr(parameters, "fields", {})) - NOT_NARROWING
        if EventStreamRenderer in view.renderer_classes:
            yield f"SSE {path}"
            yield from (f"SSE {path}?{name}=" for name in narrowing)
            narrowing.add("after")  # what narrows no list makes the events come
        yield from (f"GET {path}?{name}=" for name in narrowing)
    yield "OPTIONS"
    for path, callback in addresses().items():
        if not hasattr(callback, "cls"):
            yield from _page_doors(path, callback)


def _page_doors(path: str, callback: Any) -> list[str]:
    view = getattr(callback, "view_class", None)
    if path == "/graphql/":
        return [f"GET {path}", f"POST {path}"]
    if view is not None and view.__module__ == "backend.web.accounts":
        # What a form can send; Django's PUT is another name of POST.
        return [f"{name.upper()} {path}" for name in ("get", "post") if hasattr(view, name)]
    if path.startswith("/admin/") and path not in ("/admin/", "/admin/password_change/"):
        return [f"GET {ADMIN}", f"POST {ADMIN}"]
    return [f"GET {path}"]


def admin_paths() -> list[str]:
    """An address of every page of the admin that has no door of its own; what it names may not be there."""
    paths = {path for path, callback in addresses().items() if f"GET {ADMIN}" in _page_doors(path, callback)}
    paths = {re.sub(r"\^?\(\?P<app_label>(\w+).*\)/\$", r"\1/", path) for path in paths}
    return sorted({re.sub(r"<\w+>|\(\?P<url>\.\*\)\$", "1", path) for path in paths})


# --- Sockets ---------------------------------------------------------------------------------------------
def socket_doors() -> Iterator[str]:
    routes = [route for route in sockets.application.routes if route.callback is not refuse]
    return (f"WS /{route.pattern}" for route in routes)
