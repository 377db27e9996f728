import asyncio
import os
from collections.abc import Iterator

import pytest
from django.conf import settings
from django.core.cache import cache

from backend.projects import threads
from backend.server import collect_less_garbage


def pytest_configure() -> None:
    """Find static files when they are requested. Otherwise every test client first lists several hundred."""
    settings.WHITENOISE_AUTOREFRESH = True


def pytest_xdist_auto_num_workers() -> int:
    """Return three workers for two cores: a third of the suite's time is spent waiting for processes and timers."""
    cores = len(os.sched_getaffinity(0))
    return cores + cores // 2


def pytest_collection_finish() -> None:
    """Spend less on garbage collection, which otherwise takes a tenth of the time."""
    collect_less_garbage()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run slow tests first, so that no worker is left with one when the others have finished."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(autouse=True)
def _empty_cache() -> None:
    """Empty Redis before each test. Cached data refers to positions, which restart with the database."""
    cache.delete_pattern("*")


@pytest.fixture(autouse=True)
def _close_connections() -> Iterator[None]:
    """Close the connections of a test's threads: another test may count them, and they block dropping the database."""
    yield
    asyncio.run(threads.requests.close())
