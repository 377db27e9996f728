"""The product's settings for Django's own ASGI handler, which has a new thread, hence a connection, per request."""

from bench.support.settings import *  # noqa: F403
from bench.support.settings import DATABASES

DATABASES["default"] |= {"CONN_MAX_AGE": 0, "CONN_HEALTH_CHECKS": False}
