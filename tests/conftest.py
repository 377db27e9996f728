import pytest
from django.core.cache import cache


@pytest.fixture(autouse=True)
def _empty_cache() -> None:
    """The database is new for every test, so positions start again; what Redis holds must start again with it."""
    cache.delete_pattern("*")
