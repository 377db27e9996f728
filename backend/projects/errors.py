"""What the domain refuses, each with a stable `code`.

They extend Django's own exceptions, so that every edge maps them in one place. `NotSignedIn` and `MissingScope` extend
none: they are about the request, not about what the request asked for.
"""

from typing import Any

from django.core.exceptions import ObjectDoesNotExist, PermissionDenied, ValidationError


class NotSignedIn(Exception):
    code = "UNAUTHENTICATED"

    def __init__(self, message: str = "Sign in first.") -> None:
        super().__init__(message)


class InvalidCredential(NotSignedIn):
    """A token or session was shown, and it is none, or no longer one."""


class MissingScope(Exception):
    """The viewer's token is for less than this."""

    code = "INSUFFICIENT_SCOPE"

    def __init__(self, scope: str) -> None:
        super().__init__(f"This needs a token with the scope `{scope}`.")
        self.scope = str(scope)


class TooManyConnections(Exception):
    """The viewer has as many sockets and streams open in this process as one may have.

    `retry_after_s` is when those whose clients have gone without a word are found by the server's pings, at the latest.
    """

    code = "TOO_MANY_CONNECTIONS"
    retry_after_s = 60

    def __init__(self, limit: int) -> None:
        super().__init__(f"There are {limit} sockets and streams of yours open already: close one first.")


class NotFound(ObjectDoesNotExist):
    """Not there, or not visible to the viewer: the same answer."""

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


class NotAllowed(PermissionDenied):
    """The viewer may see it, but not do this."""

    code = "FORBIDDEN"

    def __init__(self) -> None:
        super().__init__("You may not do this.")


class ForeignOrigin(PermissionDenied):
    """A page of another site tries to use the session that its visitor has here."""

    code = "FORBIDDEN"

    def __init__(self) -> None:
        super().__init__("A page of this origin may not use a session here.")


class Conflict(ValidationError):
    """The row has moved on from the version that the writer named; `current` is the row as it is now."""

    def __init__(self, current: Any) -> None:
        super().__init__(f"This is version {current.version} by now.", code="CONFLICT")
        self.current = current


class Invalid(ValidationError):
    """One field is not acceptable. `field` is the model's attribute (`project_id`), an edge may rename it."""

    def __init__(self, field: str, message: str, code: str) -> None:
        super().__init__({field: [ValidationError(message, code=code)]})


class NotAMember(Invalid):
    """The assignee is no member of the task's project, or nobody at all."""

    def __init__(self) -> None:
        super().__init__("assignee_id", "The assignee must be a member of the project.", "NOT_A_MEMBER")


class UnknownUser(Invalid):
    """There is nobody of that name who could become a member."""

    def __init__(self) -> None:
        super().__init__("username", "There is no such user.", "NOT_FOUND")


class AlreadyAMember(Invalid):
    def __init__(self) -> None:
        super().__init__("username", "They are a member already.", "ALREADY_A_MEMBER")


class LastOwner(ValidationError):
    """Without them the project would have no owner."""

    def __init__(self) -> None:
        super().__init__("A project keeps one owner at least: make somebody else one first.", code="LAST_OWNER")


class UnknownProject(Invalid):
    """The project that a new task names is not there, or not visible."""

    def __init__(self) -> None:
        super().__init__("project_id", "There is no such project.", "NOT_FOUND")


class BadArgument(ValidationError):
    """A list was asked for in a way that makes no sense; `argument` is the name in the domain (`page_size`)."""

    def __init__(self, argument: str, message: str) -> None:
        super().__init__(message, code="BAD_USER_INPUT")
        self.argument = argument
        self.text = message


class ResumeRefused(Exception):
    """A listener cannot go on from the position it names without missing something.

    `oldest` is the oldest position from which it could; code `CURSOR_EXPIRED` where the events after its position
    are no longer kept, `RESYNC` where it fell behind or named a position that is not yet reached.
    """

    def __init__(self, code: str, oldest: int) -> None:
        super().__init__(
            "The events after this position are no longer kept."
            if code == "CURSOR_EXPIRED"
            else "Read the present state again, and listen from its position."
        )
        self.code = code
        self.oldest = oldest
