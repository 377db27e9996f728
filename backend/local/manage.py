"""`make manage ARGS="..."`: Django's command line, with the servers and settings of the running `make run`."""

import json
import os
import sys

from backend.local.console import Refusal
from backend.local.run import CHECKOUT, ENVIRONMENT, is_running


def main(arguments: list[str]) -> None:
    """Replace this process with `manage.py`. The shell's own variables take precedence."""
    if not is_running():
        raise Refusal("'make manage' uses the servers of 'make run': start it first, in another terminal.")
    environment = {**json.loads(ENVIRONMENT.read_text()), **os.environ}
    os.execve(sys.executable, [sys.executable, str(CHECKOUT / "manage.py"), *arguments], environment)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except Refusal as refusal:
        sys.exit(str(refusal))
