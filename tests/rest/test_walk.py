"""Every list costs the same number of SQL statements for one row and for a hundred.

The lists come from the routes, so a new list is tested too.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

from django.urls import get_resolver
from django.urls.resolvers import URLPattern, URLResolver

from rest.base import ListView
from rest.streams import Events
from tests.factories import UserFactory
from tests.rest.cases import ClosedCase
from tests.rows import FORGED_IDS, SIZES, Created, counts_in, forge, temporary_rows, uncached_statements


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
# A page of the journal is a list too.
JOURNAL = [f"{route}?after=0" for route, view in ROUTES if issubclass(view, Events)]


class WalkTests(ClosedCase):
    """Requests of a member of every project, with a session."""

    @classmethod
    def setUpTestData(cls) -> None:
        cls.reader = UserFactory()

    def setUp(self) -> None:
        self.client.force_login(self.reader)

    def request(self, route: str, created: Created, query: str = "") -> tuple[int, list[str]]:
        """The number of rows in the response, and the SQL statements of the request."""
        path = self.path(route, created)
        with uncached_statements() as statements:
            response = self.client.get(f"{path}{query}")
        self.assertEqual(response.status_code, 200, response.content)
        rows = response.json()
        return len(rows if isinstance(rows, list) else rows["events"]), statements

    def path(self, route: str, created: Created) -> str:
        ids = {"projects": created.project.pk, "tasks": created.task.pk, "reports": created.report.pk}
        return route.replace("<str:id>", str(ids.get(route.split("/")[1])))

    def test_no_list_costs_more_statements_for_more_rows(self) -> None:
        requests = [(route, query) for route in LISTS for query in ("", "?page_size=10", "?count=1")]
        requests += [(route, "") for route in JOURNAL]
        self.assertGreater(len(requests), 10)
        costs, rows = defaultdict(list), defaultdict(list)
        for size in SIZES:
            with temporary_rows(size, reader=self.reader) as created:
                for route, query in requests:
                    count, statements = self.request(route, created, query)
                    rows[route, query].append(count)
                    costs[route, query].append(len(statements))
        for (route, query), cost in costs.items():
            with self.subTest(f"{route}{query}"):
                few, more, most = rows[route, query]
                self.assertTrue(0 < few < min(more, most), f"tests.rows.create_rows() creates too few: {few}, {more}")
                self.assertEqual(cost, cost[:1] * len(SIZES), f"SQL statements for {SIZES} rows")

    def test_a_cursor_with_an_id_that_no_row_can_have_is_refused(self) -> None:
        """The query for the tasks of a member depends on the number of their projects."""
        for size in SIZES[1:]:
            with temporary_rows(size, reader=self.reader) as created:
                for route in LISTS:
                    orders = ("id", "-due_date", "updated_at") if route == "/tasks/" else ("",)
                    for query in (f"?page_size=1{'&ordering=' * bool(order)}{order}" for order in orders):
                        path = f"{self.path(route, created)}{query}"
                        [cursor] = re.findall("cursor=([^&>]+)", self.client.get(path)["Link"])
                        for number in FORGED_IDS:
                            if abs(number) < 2**63 and route.endswith("/comments/"):  # its ids have 64 bits
                                continue
                            with self.subTest(path, number=number):
                                response = self.client.get(f"{path}&cursor={forge(cursor, number)}")
                                self.assertEqual((response.status_code, [*response.json()]), (400, ["cursor"]))

    def test_rows_are_counted_once_and_only_if_requested(self) -> None:
        with temporary_rows(20, reader=self.reader) as created:
            for route in LISTS:
                for query, times in (("", 0), ("?count=1", 1), ("?count=0", 0)):
                    with self.subTest(f"{route}{query}"):
                        self.assertEqual(counts_in(self.request(route, created, query)[1]), times)
