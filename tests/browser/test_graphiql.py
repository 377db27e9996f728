"""GraphiQL in a browser."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta

from playwright.sync_api import expect

from tests.browser.cases import BrowserCase


class GraphiqlTests(BrowserCase):
    def post(self, path: str, **body: object) -> int:
        response = self.api.post(path, data=body)
        self.assertEqual(response.status, 201, response.text())
        return int(response.json()["id"])

    def close_menu_or_dialog(self) -> None:
        """Press Escape until it works: the menu or dialog listens for it only a moment after it takes the focus."""
        opened = self.page.locator("[role=menu], [role=dialog]")
        for _ in range(10):
            self.page.keyboard.press("Escape")
            with suppress(AssertionError):
                expect(opened).to_have_count(0, timeout=1_500)
                return
        expect(opened).to_have_count(0)

    def test_a_query_shows_its_result(self) -> None:
        self.post("/projects/", name="Moon landing")
        self.open_graphiql()

        self.run_operation("Projects", "query Projects { projects(first: 3) { nodes { id name } } }")

        self.expect_result('"Moon landing"')
        self.assert_no_error_and_no_other_host()

    def test_a_subscription_shows_changes_made_through_rest(self) -> None:
        project = self.post("/projects/", name="Moon landing")
        due_date = (datetime.now(UTC) + timedelta(days=7)).isoformat()
        cursor = self.api.post("/graphql/", data={"query": "{ cursor }"}).json()["data"]["cursor"]
        self.open_graphiql()

        self.run_operation(
            "Listen",
            f"""subscription Listen {{
              events(after: "{cursor}") {{ kind ... on TaskCreated {{ task {{ title }} }} }}
            }}""",
        )
        # The subscription may receive the first change while it catches up. It receives the second one live.
        for title in ("Launch", "Land"):
            self.post("/tasks/", project=project, title=title, due_date=due_date)
            self.expect_result(f'"{title}"')

        self.expect_result('"TASK_CREATED"')
        self.assert_no_error_and_no_other_host()

    def test_each_operation_of_the_tour_is_valid(self) -> None:
        self.open_graphiql()

        # GraphiQL sends the whole document for any operation, so the server validates them all.
        self.page.get_by_label("Execute query").click()
        self.page.get_by_role("menuitem", name="Projects").click()

        self.expect_result('"projects"')
        expect(self.page.locator(".result-window")).not_to_contain_text("errors")
        self.assert_no_error_and_no_other_host()

    def test_menus_and_dialogs_comply_with_the_content_security_policy(self) -> None:
        self.open_graphiql()

        for label in ("Execute query", "Open short keys dialog", "Open settings dialog"):
            self.page.get_by_label(label).click()
            expect(self.page.locator(":is([role=menu], [role=dialog]):focus-within")).to_be_visible()
            self.close_menu_or_dialog()

        self.assert_no_error_and_no_other_host()

    def test_operations_carry_the_csrf_token_of_the_cookie(self) -> None:
        with self.page.expect_request(lambda request: request.method == "POST") as sent:
            self.open_graphiql()

        [token] = [cookie["value"] for cookie in self.page.context.cookies() if cookie["name"] == "csrftoken"]
        self.assertEqual(sent.value.headers["x-csrftoken"], token)
