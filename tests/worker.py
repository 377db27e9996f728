"""The Redis prefix and the queue of a pytest-xdist worker: a plugin, loaded before Django reads its settings.

Workers share the servers of the run. pytest-django gives each a database of its own. Here each gets a prefix in Redis
and a queue in the broker; the processes that its tests start inherit both.
"""

import os

# "gw0", "gw1" and so on; "" where pytest runs without workers.
NAME = os.environ.get("PYTEST_XDIST_WORKER", "")

for variable in ("REDIS_PREFIX", "QUEUE"):
    os.environ[variable] = f"taskwire-test-{NAME}" if NAME else "taskwire-test"
