"""Every list there is: the same number of SQL statements for one row and for a hundred.

The lists are those of the routes, so one that is added to them is asked for as well.
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
from tests.rows import SIZES, Grown, counts_in, grown, statements_where_nothing_is_cached


def routes(patterns: list[URLPattern | URLResolver], above: str = "/") -> Iterator[tuple[str, type]]:
    """Each route, as `/tasks/<str:id>/comments/`, with the class of its view."""
    for pattern in patterns:
        route = f"{above}{pattern.pattern}"
        if isinstance(pattern, URLResolver):
            yield from routes(pattern.url_patterns, route)
        else:
            yield route, getattr(pattern.callback, "view_class", object)


ROUTES = list(routes(get_resolver().url_patterns))
LISTS = [route for route, view in ROUTES if issubclass(view, ListView)]
# The journal is a list too, if it is told where to start.
JOURNAL = [f"{route}?after=0" for route, view in ROUTES if issubclass(view, Events)]


class WalkTests(ClosedCase):
    """As a member of every project, by session."""

    @classmethod
    def setUpTestData(cls) -> None:
        cls.reader = UserFactory()

    def setUp(self) -> None:
        self.client.force_login(self.reader)

    def asked(self, route: str, made: Grown, query: str = "") -> tuple[int, list[str]]:
        """How many rows the answer has, and the SQL of it."""
        ids = {"projects": made.project.pk, "tasks": made.task.pk, "reports": made.report.pk}
        path = route.replace("<str:id>", str(ids.get(route.split("/")[1])))
        with statements_where_nothing_is_cached() as statements:
            answer = self.client.get(f"{path}{query}")
        self.assertEqual(answer.status_code, 200, answer.content)
        rows = answer.json()
        return len(rows if isinstance(rows, list) else rows["events"]), statements

    def test_no_list_costs_more_statements_for_more_rows(self) -> None:
        asked = [(route, query) for route in LISTS for query in ("", "?page_size=10", "?count=1")]
        asked += [(route, "") for route in JOURNAL]
        self.assertGreater(len(asked), 10)
        costs, rows = defaultdict(list), defaultdict(list)
        for size in SIZES:
            with grown(size, reader=self.reader) as made:
                for route, query in asked:
                    found, statements = self.asked(route, made, query)
                    rows[route, query].append(found)
                    costs[route, query].append(len(statements))
        for (route, query), cost in costs.items():
            with self.subTest(f"{route}{query}"):
                few, more, most = rows[route, query]
                self.assertTrue(0 < few < min(more, most), f"tests.rows.grow() makes too few of these: {few}, {more}")
                self.assertEqual(cost, cost[:1] * len(SIZES), f"SQL statements for {SIZES} rows")

    def test_rows_are_counted_once_where_that_is_asked_for_and_only_then(self) -> None:
        with grown(20, reader=self.reader) as made:
            for route in LISTS:
                for query, times in (("", 0), ("?count=1", 1), ("?count=0", 0)):
                    with self.subTest(f"{route}{query}"):
                        self.assertEqual(counts_in(self.asked(route, made, query)[1]), times)
