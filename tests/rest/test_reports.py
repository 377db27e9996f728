"""`/reports/` and `/reports/<id>/`."""

from datetime import date

from backend.projects import services
from tests.factories import MembershipFactory, SummaryReportFactory, UserFactory
from tests.rest.cases import ABSENT_IDS, ClosedCase, OpenCase, report_json


class ReportsTest(OpenCase):
    @classmethod
    def setUpTestData(cls) -> None:
        cls.first = SummaryReportFactory(date=date(2027, 3, 1), figures={"created": 2})
        cls.second = SummaryReportFactory(project=cls.first.project, date=date(2027, 3, 2))
        cls.elsewhere = SummaryReportFactory(date=date(2027, 3, 2))

    def test_reports_come_newest_first_as_a_plain_array(self) -> None:
        response = self.client.get("/reports/?count=1")
        reports = [report_json(report) for report in (self.elsewhere, self.second, self.first)]
        self.assertEqual((response.status_code, response.json()), (200, reports))
        self.assertEqual((response["X-Total-Count"], response["X-Cursor"]), ("3", "0"))

    def test_an_object_has_exactly_the_fields_of_the_contract(self) -> None:
        self.assertEqual(
            self.client.get(f"/reports/{self.first.pk}/").json(),
            {
                "id": self.first.pk,
                "project": self.first.project_id,
                "date": "2027-03-01",
                "generated_at": report_json(self.first)["generated_at"],
                "figures": {"created": 2},
            },
        )

    def test_reports_are_filtered_by_project(self) -> None:
        for project, ids in [
            (self.first.project_id, [self.second.pk, self.first.pk]),
            (0, []),
            (-1, []),
            (2**31, []),
            (2**63, []),
        ]:
            with self.subTest(project):
                response = self.client.get("/reports/", {"project": project})
                self.assertEqual([report["id"] for report in response.json()], ids)

    def test_all_pages_together_contain_every_report_once(self) -> None:
        pages = self.ids_of_all_pages("/reports/?page_size=2")
        self.assertEqual(pages, [[self.elsewhere.pk, self.second.pk], [self.first.pk]])

    def test_the_refusal_of_a_bad_parameter_names_it(self) -> None:
        for query, field in [("date=2027-03-01", "date"), ("project=nine", "project"), ("page_size=x", "page_size")]:
            with self.subTest(query):
                self.assert_refused(self.client.get(f"/reports/?{query}"), 400, field)

    def test_absent_reports_are_not_found(self) -> None:
        for absent in ABSENT_IDS:
            with self.subTest(absent):
                response = self.client.get(f"/reports/{absent}/")
                self.assert_refused(response, 404)
                self.assertEqual(response.json(), {"detail": "There is no such report."})

    def test_reports_are_read_only(self) -> None:
        for path in ("/reports/", f"/reports/{self.first.pk}/"):
            for method in ("POST", "PUT", "PATCH", "DELETE"):
                with self.subTest(path=path, method=method):
                    response = self.send(method, path)
                    self.assertEqual(response.status_code, 405)
                    self.assertEqual(response["Allow"], "GET, HEAD, OPTIONS")

    def test_a_list_is_a_304_until_a_report_is_generated(self) -> None:
        etag = self.client.get("/reports/")["ETag"]
        self.assertEqual(self.client.get("/reports/", headers={"If-None-Match": etag}).status_code, 304)
        with self.committed():
            services.report.generate(self.first.project_id, date(2026, 3, 3))
        again = self.client.get("/reports/", headers={"If-None-Match": etag})
        self.assertEqual((again.status_code, len(again.json())), (200, 4))

    def test_three_reports_cost_as_many_queries_as_one(self) -> None:
        self.client.get("/reports/")  # makes the tag versions known
        for size in (1, 3):
            with self.assertNumQueries(1):
                self.client.get(f"/reports/?page_size={size}")


class ReportAccessTest(ClosedCase):
    def test_reports_are_visible_to_members_only(self) -> None:
        report = SummaryReportFactory()
        path = f"/reports/{report.pk}/"
        self.assert_refused(self.client.get("/reports/"), 401)
        self.assert_refused(self.client.get(path), 401)
        self.client.force_login(UserFactory())
        self.assertEqual(self.client.get("/reports/").json(), [])
        self.assert_refused(self.client.get(path), 404)
        self.client.force_login(MembershipFactory(project=report.project, role="viewer").user)
        self.assertEqual(self.client.get("/reports/").json(), [report_json(report)])
        self.assertEqual(self.client.get(path).json(), report_json(report))
