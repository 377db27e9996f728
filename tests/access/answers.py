"""How an answer becomes a word of the table, whichever door it came through."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from django.test import Client

from tests.access.world import World, client_with

# What names a row in the body of a request, and there is none: a 400.
NO_SUCH_ROW = (
    {"project": ["There is no such project."]},
    {"assignee": ["The assignee must be a member of the project."]},
)
CODES = {"NOT_FOUND": "hidden", "NOT_A_MEMBER": "hidden", "FORBIDDEN": "forbidden", "UNAUTHENTICATED": "sign in"}


@dataclass
class Visit:
    """Somebody of this kind at a door, with what their request names."""

    world: World
    kind: str
    names: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.names = self.world.names(self.kind)

    def client(self) -> Client:
        return client_with(self.world.credentials(self.kind))


# From what was not refused to a word.
Read = Callable[[Visit, Any], str]


# --- Refusals --------------------------------------------------------------------------------------------
def word_of_answer(visit: Visit, answer: Any, read: Read) -> str:
    """Of an answer of GraphQL."""
    for error in answer.get("errors", ()):
        match error["extensions"]:
            case {"code": "INSUFFICIENT_SCOPE", "scope": scope}:
                return f"scope {scope}"
            case {"code": code}:
                return CODES.get(code, str(error))
    result = answer["data"]["result"]
    if isinstance(result, dict) and "messages" in result:
        [code] = [message["code"] for message in result["messages"]]
        return CODES.get(code, code)
    return read(visit, result)


def word_of_response(visit: Visit, response: Any, read: Read) -> str:
    """Of an answer of REST; `read` gets all of it."""
    match response.status_code:
        case 401 if response["WWW-Authenticate"].startswith("Bearer"):
            return "sign in"
        case 403 if 'error="insufficient_scope"' in response.get("WWW-Authenticate", ""):
            return f"scope {response.json()['scope']}"
        case 403:
            return "forbidden"
        case 404:
            return "hidden"
        case 400 if response.json() in NO_SUCH_ROW:
            return "hidden"
        case 200 | 201 | 204:
            return read(visit, response)
        case status:
            return f"{status} {response.content[:200]}"


# --- Rows ------------------------------------------------------------------------------------------------
def anything(visit: Visit, result: Any) -> str:
    return "yes"


def at(*path: str, read: Read) -> Read:
    """`read` what stands below; nothing stands below what is hidden."""

    def read_below(visit: Visit, result: Any) -> str:
        for name in path:
            if result is None:
                return "hidden"
            result = result[name]
        return read(visit, result)

    return read_below


def in_body(read: Read) -> Read:
    return lambda visit, response: read(visit, response.json())


def in_count(read: Read) -> Read:
    return lambda visit, response: read(visit, int(response["X-Total-Count"]))


def seen(name: str, key: str = "id") -> Read:
    """One row, which is the one of this name."""

    def read(visit: Visit, row: Any) -> str:
        if row is None:
            return "hidden"
        return "yes" if int(row[key]) == visit.names[name] else f"another one: {row}"

    return read


def _rows(rows: Any) -> list[Any]:
    """A list of REST, or the nodes of a connection."""
    return list(rows["nodes"] if isinstance(rows, dict) else rows)


def found(name: str, of: Callable[[Any], Any] = lambda row: row) -> Read:
    """A list with the row of this name and no other, or with nothing."""

    def read(visit: Visit, rows: Any) -> str:
        ids = [int(of(row)["id"]) for row in _rows(rows)]
        return {(): "hidden", (visit.names[name],): "yes"}.get(tuple(ids), f"found {ids}")

    return read


def listed(noun: str, key: str = "id") -> Read:
    """A list of all the rows of this noun that one gets to see."""

    def read(visit: Visit, rows: Any) -> str:
        ids = sorted(int(row[key]) for row in _rows(rows))
        words = [word for word, expected in visit.world.rows(noun, visit.kind).items() if expected == ids]
        return words[0] if words else f"listed {ids}"

    return read


def counted(noun: str) -> Read:
    """How many rows of this noun one gets to see."""

    def read(visit: Visit, number: int) -> str:
        words = [word for word, expected in visit.world.rows(noun, visit.kind).items() if len(expected) == number]
        return words[0] if words else f"counted {number}"

    return read


def counts(expected: int) -> Read:
    return lambda visit, number: "yes" if number == expected else f"counted {number}"


def members(of: Callable[[Any], Any]) -> Read:
    """All members of the project."""

    def read(visit: Visit, rows: Any) -> str:
        ids = {int(of(row)) for row in _rows(rows)}
        return "yes" if ids == visit.world.member_ids() else f"listed {ids}"

    return read


def told(visit: Visit, events: Any) -> str:
    """All events of the project, or none."""
    positions = [int(event["cursor"]) for event in _rows(events)]
    return {(): "hidden", tuple(visit.world.positions(visit.kind, "yes")): "yes"}.get(tuple(positions), str(positions))


def shown(key: str, name: str) -> Read:
    """Events of which one at least shows the row of this name, or none."""

    def read(visit: Visit, events: Any) -> str:
        ids = {int(event[key]["id"]) for event in _rows(events) if event.get(key)}
        return "yes" if visit.names[name] in ids else f"shown {ids}" if _rows(events) else "hidden"

    return read


def signed(of: Callable[[Any], str]) -> Read:
    """A comment, by whose name it carries."""

    def read(visit: Visit, comment: Any) -> str:
        user = visit.world.user(visit.kind)
        own_name = user.display_name if user else None
        return {own_name: "own", "Somebody Else": "yes"}.get(of(comment), f"by {of(comment)}")

    return read
