"""The product's settings, less a bound: in open access all listeners are one account's."""

from backend.settings import *  # noqa: F403

LIVE_LISTENERS_PER_VIEWER = 1000
