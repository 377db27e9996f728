"""A pytest plugin that sets the Redis prefix and the queue of a worker, before Django reads its settings.

The workers of pytest-xdist share the servers of the run. pytest-django gives each worker a database. This plugin gives
each a prefix in Redis and a queue in the broker. The processes that its tests start inherit both.
"""

import os

# "gw0", "gw1" and so on; "" where pytest runs without workers.
NAME = os.environ.get("PYTEST_XDIST_WORKER", "")

for variable in ("REDIS_PREFIX", "QUEUE"):
    os.environ[variable] = f"taskwire-test-{NAME}" if NAME else "taskwire-test"
