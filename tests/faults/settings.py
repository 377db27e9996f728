"""The product's settings with a higher limit: in open mode all listeners count as one account's."""

from backend.settings import *  # noqa: F403

LIVE_LISTENERS_PER_VIEWER = 1000
