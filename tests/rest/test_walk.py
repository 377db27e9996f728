"""Every list costs the same number of SQL statements for one row and for a hundred.

The lists are read from the routes, so a new list is tested too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from django.urls import get_resolver
from django.urls.resolvers import URLPattern, URLResolver

from rest.base import ListView
from rest.streams import Events
from tests.factories import UserFactory
from tests.rest.cases import ClosedCase
from tests.rows import SIZES, Grown, counts_in, grown, uncached_statements


def routes(patterns: list[URLPattern | URLResolver], above: str = "/") -> Iterator[tuple[str, type]]:
    """Each route, such as `/tasks/<str:id>/comments/`, with its view class."""
    for pattern in patterns:
        route = f"{above}{pattern.pattern}"
        if isinstance(pattern, URLResolver):
            yield from routes(pattern.url_patterns, route)
        else:
            yield route, getattr(pattern.callback, "view_class", object)


ROUTES = list(routes(get_resolver().url_patterns))
LISTS = [route for route, view in ROUTES if issubclass(view, ListView)]
# With a position the journal is a list too.
JOURNAL = [f"{route}?after=0" for route, view in ROUTES if issubclass(view, Events)]


class WalkTests(ClosedCase):
    """Requests of a member of every project, with a session."""

    @classmethod
    def setUpTestData(cls) -> None:
        cls.reader = UserFactory()

    def setUp(self) -> None:
        self.client.force_login(self.reader)

    def request(self, route: str, made: Grown, query: str = "") -> tuple[int, list[str]]:
        """The number of rows in the response, and its SQL statements."""
        ids = {"projects": made.project.pk, "tasks": made.task.pk, "reports": made.report.pk}
        path = route.replace("<str:id>", str(ids.get(route.split("/")[1])))
        with uncached_statements() as statements:
            response = self.client.get(f"{path}{query}")
        self.assertEqual(response.status_code, 200, response.content)
        rows = response.json()
        return len(rows if isinstance(rows, list) else rows["events"]), statements

    def test_no_list_costs_more_statements_for_more_rows(self) -> None:
        requests = [(route, query) for route in LISTS for query in ("", "?page_size=10", "?count=1")]
        requests += [(route, "") for route in JOURNAL]
        self.assertGreater(len(requests), 10)
        costs, rows = defaultdict(list), defaultdict(list)
        for size in SIZES:
            with grown(size, reader=self.reader) as made:
                for route, query in requests:
                    count, statements = self.request(route, made, query)
                    rows[route, query].append(count)
                    costs[route, query].append(len(statements))
        for (route, query), cost in costs.items():
            with self.subTest(f"{route}{query}"):
                few, more, most = rows[route, query]
                self.assertTrue(0 < few < min(more, most), f"tests.rows.grow() makes too few of these: {few}, {more}")
                self.assertEqual(cost, cost[:1] * len(SIZES), f"SQL statements for {SIZES} rows")

    def test_rows_are_counted_once_and_only_if_requested(self) -> None:
        with grown(20, reader=self.reader) as made:
            for route in LISTS:
                for query, times in (("", 0), ("?count=1", 1), ("?count=0", 0)):
                    with self.subTest(f"{route}{query}"):
                        self.assertEqual(counts_in(self.request(route, made, query)[1]), times)
