import asyncio
from collections.abc import Iterator

import pytest
from django.core.cache import cache

from backend.projects import threads


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests begin first, so that no worker is left with one when the others have finished."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(autouse=True)
def _empty_cache() -> None:
    """The database is new for every test, so positions start again; what Redis holds must start again with it."""
    cache.delete_pattern("*")


@pytest.fixture(autouse=True)
def _no_kept_connections() -> Iterator[None]:
    """What a test's threads keep open would be in the way of the next one's count, and of the database's end."""
    yield
    asyncio.run(threads.requests.close())
