"""The errors of the domain, each with a stable `code`.

Errors of a requested object or its fields extend Django's own exceptions, so that every edge maps them in one place.
Errors of the credential, of limits and of the journal extend none of these: they concern the whole request.
"""

from collections.abc import Sequence
from typing import Any

from django.core.exceptions import ObjectDoesNotExist, PermissionDenied, ValidationError
from django.db import InterfaceError, OperationalError

# SQLSTATEs of a server that stops, is starting, or has no connection left. Class 08 are connection errors.
_UNAVAILABLE = {"53300", "57P01", "57P02", "57P03"}


class NotSignedIn(Exception):
    code = "UNAUTHENTICATED"

    def __init__(self, message: str = "Sign in first.") -> None:
        super().__init__(message)


class InvalidCredential(NotSignedIn):
    """The token or session is unknown or no longer valid."""


class MissingScope(Exception):
    """The scope of the viewer's token does not allow this operation."""

    code = "INSUFFICIENT_SCOPE"

    def __init__(self, scope: str) -> None:
        super().__init__(f"This needs a token with the scope `{scope}`.")
        self.scope = str(scope)


class TooManyConnections(Exception):
    """The viewer already has the maximum number of sockets and streams open in this process.

    The server's pings take `retry_after_s` to detect clients that disappeared without closing their connections.
    """

    code = "TOO_MANY_CONNECTIONS"
    retry_after_s = 60

    def __init__(self, limit: int) -> None:
        super().__init__(f"You already have {limit} sockets and streams open: close one first.")


class Unavailable:
    """The response of every edge while PostgreSQL cannot be reached (`is_unavailable`)."""

    code = "UNAVAILABLE"
    message = "The database is not available. Try again in a few seconds."
    retry_after_s = 2


def is_unavailable(error: object) -> bool:
    """Whether PostgreSQL refused or lost a connection. Its other errors are faults of our own."""
    if isinstance(error, InterfaceError):
        return True  # psycopg2: "connection already closed"
    if not isinstance(error, OperationalError):
        return False
    sqlstate: str | None = getattr(error.__cause__, "pgcode", None)
    return sqlstate is None or sqlstate.startswith("08") or sqlstate in _UNAVAILABLE


class RateLimited(Exception):
    """The viewer has spent a budget. `balances` are those of all budgets that the request is charged to."""

    code = "RATE_LIMITED"

    def __init__(self, retry_after_s: int, balances: Sequence[Any] = ()) -> None:
        super().__init__(f"Your budget is spent: try again in {retry_after_s} s.")
        self.retry_after_s = retry_after_s
        self.balances = balances


class NotFound(ObjectDoesNotExist):
    """The object does not exist, or the viewer may not see it: both raise the same error."""

    code = "NOT_FOUND"
    noun = "object"

    def __init__(self) -> None:
        super().__init__(f"There is no such {self.noun}.")


class ProjectNotFound(NotFound):
    noun = "project"


class TaskNotFound(NotFound):
    noun = "task"


class ReportNotFound(NotFound):
    noun = "report"


class TokenNotFound(NotFound):
    noun = "token"


class MemberNotFound(NotFound):
    noun = "member"


class InvitationNotFound(NotFound):
    noun = "invitation"


class NotAllowed(PermissionDenied):
    """The viewer may see the object, but not perform this operation."""

    code = "FORBIDDEN"

    def __init__(self, message: str = "You may not do this.") -> None:
        super().__init__(message)


class InvitationRequired(NotAllowed):
    """The viewer may not add a member directly, but may invite the user."""

    def __init__(self) -> None:
        super().__init__(
            "A user joins by accepting an invitation: use inviteMember, or POST /projects/<id>/invitations/."
        )


class ForeignOrigin(PermissionDenied):
    """A page of another site uses the session of its visitor."""

    code = "FORBIDDEN"

    def __init__(self) -> None:
        super().__init__("A page of this origin may not use a session here.")


class Conflict(ValidationError):
    """The row is no longer at the version that the writer named; `current` is the present row."""

    def __init__(self, current: Any) -> None:
        super().__init__(f"The current version is {current.version}.", code="CONFLICT")
        self.current = current


class Invalid(ValidationError):
    """One field is invalid. `field` is the model's attribute (`project_id`); an edge may rename it."""

    def __init__(self, field: str, message: str, code: str) -> None:
        super().__init__({field: [ValidationError(message, code=code)]})


class NotAMember(Invalid):
    """The assignee is not a member of the task's project, or does not exist."""

    def __init__(self) -> None:
        super().__init__("assignee_id", "The assignee must be a member of the project.", "NOT_A_MEMBER")


class UnknownUser(Invalid):
    """There is no active user of that name."""

    def __init__(self) -> None:
        super().__init__("username", "There is no such user.", "NOT_FOUND")


class AlreadyAMember(Invalid):
    def __init__(self) -> None:
        super().__init__("username", "This user is already a member.", "ALREADY_A_MEMBER")


class InvitationExpired(ValidationError):
    """The invitation was not accepted in time."""

    def __init__(self) -> None:
        super().__init__("This invitation has expired: ask an owner for a new one.", code="INVITATION_EXPIRED")


class LastOwner(ValidationError):
    """The change would leave the project without an owner."""

    def __init__(self) -> None:
        super().__init__("A project needs at least one owner: make another member an owner first.", code="LAST_OWNER")


class UnknownProject(Invalid):
    """The project of a new task does not exist or is not visible."""

    def __init__(self) -> None:
        super().__init__("project_id", "There is no such project.", "NOT_FOUND")


class BadArgument(ValidationError):
    """An argument of a list is invalid. `argument` is the name of the resolver's parameter; an edge may rename it."""

    def __init__(self, argument: str, message: str) -> None:
        super().__init__(message, code="BAD_USER_INPUT")
        self.argument = argument
        self.text = message


class ResumeRefused(Exception):
    """A listener cannot resume from its position without missing events.

    `oldest` is the oldest position to resume from. `code` is `CURSOR_EXPIRED` where the events after the listener's
    position are no longer retained, `RESYNC` where the listener fell behind or its position is after the newest event.
    """

    def __init__(self, code: str, oldest: int) -> None:
        super().__init__(
            "The events after this position are no longer retained."
            if code == "CURSOR_EXPIRED"
            else "Read the current state again, and listen from its position."
        )
        self.code = code
        self.oldest = oldest


class OperationTimedOut(OperationalError):
    """A request, an operation or one of its statements exceeded its deadline. What was committed is not undone."""

    code = "TIMEOUT"
    retry_after_s = 10

    def __init__(self, timeout_s: float) -> None:
        super().__init__(f"This took longer than {timeout_s:g} seconds. Ask for less, or try again later.")


class ResponseTooLarge(Exception):
    code = "RESPONSE_TOO_LARGE"

    def __init__(self, limit: int) -> None:
        super().__init__(f"The response would have more than {limit} bytes. Ask for fewer rows or fields.")
