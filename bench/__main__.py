"""`make bench`: run the benchmarks that are named, or all of them, one after another.

Each is a module of this package with a `main()`, which reports its figures (`support/figures.py`) and reads the URLs of
the servers from the environment. A run of all of them rewrites `docs/benchmarks.md`, so that all figures there are from
one run. A run of some only prints its figures.
"""

import importlib
import os
import pkgutil
import signal
import sys
from pathlib import Path

from backend.local.console import exit_with, say
from backend.local.testing import TEST_ENV, servers

from .support.figures import taken

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(selected: list[str]) -> int:
    modules = pkgutil.iter_modules([str(Path(__file__).parent)])
    names = sorted(module.name for module in modules if not module.ispkg and module.name != "__main__")
    if unknown := sorted(set(selected) - set(names)):
        print(f"No benchmark is called {', '.join(unknown)}: there are {', '.join(names)}.", file=sys.stderr)
        return 2
    for number in STOP_SIGNALS:
        signal.signal(number, _stop)
    os.environ.update(TEST_ENV)
    with servers(os.environ) as urls:
        os.environ.update(urls)
        sections = {}
        for name in selected or names:
            say(f"--- {name}")
            benchmark = importlib.import_module(f"bench.{name}")
            benchmark.main()
            sections[name] = (str(benchmark.__doc__).partition("\n")[0], taken())
        if not selected:
            from .support import page

            page.write(sections)
            say(f"--- written: {page.PAGE.relative_to(page.CHECKOUT)}")
    return 0


def _stop(*_signal: object) -> None:
    """End the run as Ctrl-C does. Ignore further signals, since the cleanup takes a bounded time."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    exit_with(main)
