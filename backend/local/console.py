"""Output and exit codes of the commands."""

import sys
from collections.abc import Callable
from typing import NoReturn


class Refusal(Exception):
    """A reason to stop, as one line for the user."""


def exit_with(main: Callable[[list[str]], int]) -> NoReturn:
    """Exit with the code that `main` returns. A Refusal is printed and exits with 1; Ctrl-C exits with 130."""
    try:
        sys.exit(main(sys.argv[1:]))
    except Refusal as refusal:
        sys.exit(str(refusal))
    except KeyboardInterrupt:
        sys.exit(130)


def say(line: str) -> None:
    print(line, flush=True)
