"""What the person at the keyboard is told."""

import sys
from collections.abc import Callable
from typing import NoReturn


class Refusal(Exception):
    """A reason not to go on, said in one clear line."""


def exit_with(main: Callable[[list[str]], int]) -> NoReturn:
    """End the process as `main`, called with its arguments, says; a refusal is its one line, Ctrl-C is 130."""
    try:
        sys.exit(main(sys.argv[1:]))
    except Refusal as refusal:
        sys.exit(str(refusal))
    except KeyboardInterrupt:
        sys.exit(130)


def say(line: str) -> None:
    print(line, flush=True)
