"""The settings of a benchmark's servers: the product's, with a prefix of their own in Redis."""

import os

from backend.settings import *  # noqa: F403
from backend.settings import CACHES, CHANNEL_LAYERS, REDIS_URL

CACHES["default"]["KEY_PREFIX"] = os.environ["BENCH_PREFIX"]
CHANNEL_LAYERS["default"]["CONFIG"] = {"hosts": [REDIS_URL], "prefix": os.environ["BENCH_PREFIX"]}
