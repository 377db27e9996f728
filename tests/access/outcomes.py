"""Maps the responses of all endpoints to the words of the table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from django.test import Client

from tests.access.world import World, client_with

# The errors of a 400 where the body names a row that does not exist.
NO_SUCH_ROW = (
    {"project": ["There is no such project."]},
    {"assignee": ["The assignee must be a member of the project."]},
)
CODES = {"NOT_FOUND": "hidden", "NOT_A_MEMBER": "hidden", "FORBIDDEN": "forbidden", "UNAUTHENTICATED": "sign in"}


@dataclass
class Caller:
    """A caller of one kind, and the values for the placeholders of their request."""

    world: World
    kind: str
    names: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.names = self.world.names(self.kind)

    def client(self) -> Client:
        return client_with(self.world.credentials(self.kind))


# Maps a result that is no refusal to a word.
Read = Callable[[Caller, Any], str]


# --- Refusals --------------------------------------------------------------------------------------------
def word_of_result(caller: Caller, response: Any, read: Read) -> str:
    """Return the word for a GraphQL response. `read` gets the field `result`."""
    for error in response.get("errors", ()):
        match error["extensions"]:
            case {"code": "INSUFFICIENT_SCOPE", "scope": scope}:
                return f"scope {scope}"
            case {"code": code}:
                return CODES.get(code, str(error))
    result = response["data"]["result"]
    if isinstance(result, dict) and "messages" in result:
        [code] = [message["code"] for message in result["messages"]]
        return CODES.get(code, code)
    return read(caller, result)


def word_of_response(caller: Caller, response: Any, read: Read) -> str:
    """Return the word for a REST response. `read` gets the whole response."""
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
            return read(caller, response)
        case status:
            return f"{status} {response.content[:200]}"


# --- Rows ------------------------------------------------------------------------------------------------
def anything(caller: Caller, result: Any) -> str:
    return "yes"


def at(*path: str, read: Read) -> Read:
    """Apply `read` to the value at this path. A null on the path means `hidden`."""

    def read_at_path(caller: Caller, result: Any) -> str:
        for name in path:
            if result is None:
                return "hidden"
            result = result[name]
        return read(caller, result)

    return read_at_path


def in_body(read: Read) -> Read:
    return lambda caller, response: read(caller, response.json())


def in_count(read: Read) -> Read:
    return lambda caller, response: read(caller, int(response["X-Total-Count"]))


def seen(name: str, key: str = "id") -> Read:
    """Expect the row of this name."""

    def read(caller: Caller, row: Any) -> str:
        if row is None:
            return "hidden"
        return "yes" if int(row[key]) == caller.names[name] else f"another one: {row}"

    return read


def _rows(rows: Any) -> list[Any]:
    """Return the rows of a REST list, or the nodes of a connection."""
    return list(rows["nodes"] if isinstance(rows, dict) else rows)


def found(name: str, of: Callable[[Any], Any] = lambda row: row) -> Read:
    """Expect a list with only the row of this name, or an empty one."""

    def read(caller: Caller, rows: Any) -> str:
        ids = [int(of(row)["id"]) for row in _rows(rows)]
        return {(): "hidden", (caller.names[name],): "yes"}.get(tuple(ids), f"found {ids}")

    return read


def listed(noun: str, key: str = "id") -> Read:
    """Expect a list of all rows of this noun that the caller may see."""

    def read(caller: Caller, rows: Any) -> str:
        ids = sorted(int(row[key]) for row in _rows(rows))
        words = [word for word, expected in caller.world.rows(noun, caller.kind).items() if expected == ids]
        return words[0] if words else f"listed {ids}"

    return read


def counted(noun: str) -> Read:
    """Expect the number of rows of this noun that the caller may see."""

    def read(caller: Caller, number: int) -> str:
        words = [word for word, expected in caller.world.rows(noun, caller.kind).items() if len(expected) == number]
        return words[0] if words else f"counted {number}"

    return read


def counts(expected: int) -> Read:
    return lambda caller, number: "yes" if number == expected else f"counted {number}"


def members(of: Callable[[Any], Any]) -> Read:
    """Expect all members of the project."""

    def read(caller: Caller, rows: Any) -> str:
        ids = {int(of(row)) for row in _rows(rows)}
        return "yes" if ids == caller.world.member_ids() else f"listed {ids}"

    return read


def project_events(caller: Caller, events: Any) -> str:
    """Expect all events of the project, or none."""
    positions = [int(event["cursor"]) for event in _rows(events)]
    return {(): "hidden", tuple(caller.world.positions(caller.kind, "yes")): "yes"}.get(
        tuple(positions), str(positions)
    )


def shown(key: str, name: str) -> Read:
    """Expect at least one event with the row of this name, or no events."""

    def read(caller: Caller, events: Any) -> str:
        ids = {int(event[key]["id"]) for event in _rows(events) if event.get(key)}
        return "yes" if caller.names[name] in ids else f"shown {ids}" if _rows(events) else "hidden"

    return read


def authored(of: Callable[[Any], str]) -> Read:
    """Return the word for the author of a comment."""

    def read(caller: Caller, comment: Any) -> str:
        user = caller.world.user(caller.kind)
        own_name = user.display_name if user else None
        return {own_name: "own", "Somebody Else": "yes"}.get(of(comment), f"by {of(comment)}")

    return read
