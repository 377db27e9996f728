"""The product's settings with a prefix in Redis of their own, for the servers of a benchmark."""

import os

from backend.settings import *  # noqa: F403
from backend.settings import CACHES, CHANNEL_LAYERS, REDIS_URL

CACHES["default"]["KEY_PREFIX"] = os.environ["BENCH_PREFIX"]
CHANNEL_LAYERS["default"]["CONFIG"] = {"hosts": [REDIS_URL], "prefix": os.environ["BENCH_PREFIX"]}
