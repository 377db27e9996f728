"""The product's settings for Django's ASGI handler, which opens a thread, and so a connection, for each request."""

from bench.support.settings import *  # noqa: F403
from bench.support.settings import DATABASES

DATABASES["default"] |= {"CONN_MAX_AGE": 0, "CONN_HEALTH_CHECKS": False}
