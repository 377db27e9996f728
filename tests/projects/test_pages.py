from datetime import UTC, datetime, timedelta
from itertools import chain

from backend.projects.access import SYSTEM, viewer_for
from backend.projects.errors import BadArgument
from backend.projects.models import Task
from backend.projects.resolvers import search
from backend.projects.resolvers.page import Order, PageRequest
from backend.projects.resolvers.task import TaskFilter, list_tasks, list_tasks_of_projects
from backend.projects.rows import TaskRow
from tests.cases import Case
from tests.factories import MembershipFactory, ProjectFactory, TaskFactory

NEWEST_FIRST, SOONEST_DUE_FIRST, LATEST_DUE_FIRST = Order(), Order("due_date", False), Order("due_date", True)


class WalkTests(Case):
    @classmethod
    def setUpTestData(cls) -> None:
        noon = datetime(2027, 3, 1, 12, tzinfo=UTC)
        project = ProjectFactory()
        # Three due dates for seven tasks: most are tied.
        for number in range(7):
            TaskFactory(project=project, due_date=noon + timedelta(days=number % 3))

    def pages(self, order: Order, request: PageRequest, forward: bool) -> list[list[int]]:
        pages = []
        while True:
            page = list_tasks(SYSTEM, filter=TaskFilter(), order=order, page=request).page
            pages.append([row.id for row in page.rows])
            has_earlier, has_later = page.has_previous, page.has_next
            if not forward:
                has_earlier, has_later = has_later, has_earlier
            self.assertEqual(has_earlier, len(pages) > 1)
            if not has_later:
                return pages
            edge = page.page_cursor(page.rows[-1] if forward else page.rows[0])
            request = PageRequest(first=3, after=edge) if forward else PageRequest(last=3, before=edge)

    def expected(self, order: Order) -> list[int]:
        return list(Task.objects.order_by(*order.columns).values_list("pk", flat=True))

    def test_forward_pages_contain_every_row_once_in_order(self) -> None:
        for order in (NEWEST_FIRST, SOONEST_DUE_FIRST, LATEST_DUE_FIRST):
            pages = self.pages(order, PageRequest(first=3), forward=True)
            self.assertEqual([len(page) for page in pages], [3, 3, 1])
            self.assertEqual(list(chain(*pages)), self.expected(order))

    def test_backward_pages_contain_every_row_once(self) -> None:
        for order in (NEWEST_FIRST, SOONEST_DUE_FIRST, LATEST_DUE_FIRST):
            pages = self.pages(order, PageRequest(last=3), forward=False)
            self.assertEqual([len(page) for page in pages], [3, 3, 1])
            self.assertEqual(list(chain(*reversed(pages))), self.expected(order))

    def test_rows_created_and_deleted_between_two_pages_do_not_shift_the_second(self) -> None:
        expected = self.expected(NEWEST_FIRST)
        page = list_tasks(
            SYSTEM, filter=TaskFilter(), order=NEWEST_FIRST, page=PageRequest(first=3, default_size=9)
        ).page
        TaskFactory(project=ProjectFactory())
        Task.objects.filter(pk=page.rows[-1].id).delete()
        after = PageRequest(first=9, after=page.page_cursor(page.rows[-1]))
        rest = list_tasks(SYSTEM, filter=TaskFilter(), order=NEWEST_FIRST, page=after).page
        self.assertEqual([row.id for row in rest.rows], expected[3:])


class RefusedTests(Case):
    def read(self, page: PageRequest, order: Order = NEWEST_FIRST, filter: TaskFilter | None = None) -> None:
        list_tasks(SYSTEM, filter=filter or TaskFilter(), order=order, page=page)

    def test_invalid_sizes_are_refused(self) -> None:
        for page, argument in (
            (PageRequest(first=0), "first"),
            (PageRequest(first=-1), "first"),
            (PageRequest(first=101), "first"),
            (PageRequest(last=0), "last"),
            (PageRequest(first=1, last=1), "last"),
        ):
            with self.subTest(page=page), self.assertRaises(BadArgument) as refused:
                self.read(page)
            self.assertEqual(refused.exception.argument, argument)

    def test_malformed_cursors_and_cursors_of_another_list_are_refused(self) -> None:
        row = TaskRow.of(TaskFactory())
        page = list_tasks(SYSTEM, filter=TaskFilter(), order=NEWEST_FIRST, page=PageRequest(default_size=9)).page
        valid_cursor = page.page_cursor(row)
        self.read(PageRequest(after=valid_cursor))
        for cursor in ("", "x", "é", valid_cursor[:-2], valid_cursor + "AAAA", "bnVsbA", "W10", "WzEsMiwzXQ"):
            with self.subTest(cursor=cursor), self.assertRaises(BadArgument):
                self.read(PageRequest(after=cursor))
        with self.assertRaises(BadArgument):
            self.read(PageRequest(after=valid_cursor), order=SOONEST_DUE_FIRST)
        with self.assertRaises(BadArgument):
            self.read(PageRequest(before=valid_cursor), filter=TaskFilter(status="pending"))


class NestedPageTests(Case):
    def test_each_parent_gets_its_own_page_in_one_query(self) -> None:
        projects = ProjectFactory.create_batch(3)
        for number, project in enumerate(projects):
            TaskFactory.create_batch(number, project=project)
        ids = [project.pk for project in projects]
        with self.assertNumQueries(1):
            pages = list_tasks_of_projects(
                SYSTEM, ids, filter=TaskFilter(), order=NEWEST_FIRST, page=PageRequest(first=1, default_size=9)
            )
        self.assertEqual([(len(pages[pk].rows), pages[pk].has_next) for pk in ids], [(0, False), (1, False), (1, True)])
        self.assertEqual(pages[ids[2]].rows[0].id, Task.objects.latest("pk").pk)

    def test_hidden_matches_do_not_count_towards_the_maximum_of_a_search(self) -> None:
        self.addCleanup(setattr, search, "MAX_MATCHES", search.MAX_MATCHES)
        search.MAX_MATCHES = 2
        member = MembershipFactory()
        visible = TaskFactory(project=member.project, title="needle")
        TaskFactory.create_batch(3, title="needle")
        pages = list_tasks_of_projects(
            viewer_for(member.user),
            [member.project_id],
            filter=TaskFilter(search="needle"),
            order=NEWEST_FIRST,
            page=PageRequest(default_size=9),
        )
        self.assertEqual([row.id for row in pages[member.project_id].rows], [visible.pk])


class FilterTests(Case):
    def found(self, **filter: object) -> list[str]:
        task_filter = TaskFilter(**filter)  # type: ignore[arg-type]
        page = list_tasks(SYSTEM, filter=task_filter, order=Order("id", False), page=PageRequest(default_size=99))
        return [row.title for row in page.page.rows]

    def test_search_matches_text_literally_in_any_case(self) -> None:
        for title in ("100% done", "1000 done", "under_score", "underXscore", "Groß"):
            TaskFactory(title=title, description="")
        self.assertEqual(self.found(search="100%"), ["100% done"])
        self.assertEqual(self.found(search="R_S"), ["under_score"])
        self.assertEqual(self.found(search="GROß"), ["Groß"])
        self.assertEqual(self.found(search="absent"), [])

    def test_search_includes_the_description(self) -> None:
        TaskFactory(title="One", description="a needle here")
        TaskFactory(title="Two", description="")
        self.assertEqual(self.found(search="needle"), ["One"])

    def test_the_refusal_of_an_invalid_argument_names_it(self) -> None:
        for argument, value in (("search", "ab"), ("search", "ab\x00"), ("search", "ab\ud800"), ("status", "done")):
            with self.subTest(value=value), self.assertRaises(BadArgument) as refused:
                TaskFilter(**{argument: value})  # type: ignore[arg-type]
            self.assertEqual(refused.exception.argument, argument)

    def test_an_id_that_no_row_has_finds_nothing(self) -> None:
        TaskFactory()
        self.assertEqual((self.found(project_id=0), self.found(assignee_id=2**31)), ([], []))
