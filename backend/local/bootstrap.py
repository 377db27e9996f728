"""Entry point of every `make` target: refuse an old Python in one line, then run `environment.py`.

It uses only syntax that every Python can parse. Otherwise an old one would report a SyntaxError instead.
"""

import os
import runpy
import sys

if sys.version_info < (3, 11):
    sys.exit(
        "Taskwire needs Python 3.11 or newer, this is "
        + sys.version.split()[0]
        + ": name another one, as in 'make run PYTHON=python3.13'."
    )

if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))
    runpy.run_path(os.path.join(here, "environment.py"), run_name="__main__")
