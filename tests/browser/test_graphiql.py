"""GraphiQL as a person meets it: Chromium on a running daphne, under our Content-Security-Policy."""

from __future__ import annotations

import os
import shutil
import unittest
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

from playwright.sync_api import ConsoleMessage, Page, expect, sync_playwright

from tests.cases import DaphneCase

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# Added to Playwright's own, which already keep Chromium from calling home.
CHROMIUM_FLAGS = ["--disable-gpu", "--disable-quic"]
TELL_VIOLATIONS = """
addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI }) =>
  console.error(`${violatedDirective} blocked ${blockedURI}`));
"""

expect.set_options(timeout=15_000)


@unittest.skipIf(CHROMIUM is None and os.environ.get("CI") != "true", "no Chromium is installed")
class GraphiqlTests(DaphneCase):
    """Data goes in over HTTP: Playwright runs an event loop in this thread, where Django refuses its ORM."""

    def setUp(self) -> None:
        super().setUp()
        self.assertIsNotNone(CHROMIUM, "CI must install a Chromium")
        playwright = sync_playwright().start()
        self.addCleanup(playwright.stop)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        self.addCleanup(browser.close)
        self.api = playwright.request.new_context(base_url=self.base_url)
        self.page = browser.new_page()
        self.errors: list[str] = []
        self.requested: list[str] = []
        self.watch(self.page)

    def watch(self, page: Page) -> None:
        def keep_error(message: ConsoleMessage) -> None:
            if message.type == "error":
                self.errors.append(message.text)

        page.add_init_script(TELL_VIOLATIONS)
        page.on("console", keep_error)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self.requested.append(request.url))
        page.on("websocket", lambda socket: self.requested.append(socket.url))

    def open_graphiql(self) -> None:
        self.page.goto(f"{self.base_url}/graphql/")
        self.page.get_by_label("Show Documentation Explorer").click()
        schema = self.page.locator(".graphiql-doc-explorer")
        expect(schema).to_contain_text("subscription")

    def run_operation(self, name: str, text: str) -> None:
        self.page.locator(".graphiql-query-editor .CodeMirror").click()
        self.page.keyboard.press("Control+A")
        self.page.keyboard.insert_text(text)
        # GraphiQL reads the text a moment later, and until then would run it under the former name.
        expect(self.page.get_by_role("tab", selected=True)).to_have_text(name)
        self.page.keyboard.press("Control+Enter")

    def expect_result(self, text: str) -> None:
        expect(self.page.locator(".result-window")).to_contain_text(text)

    def post(self, path: str, **body: object) -> int:
        response = self.api.post(path, data=body)
        self.assertEqual(response.status, 201, response.text())
        return int(response.json()["id"])

    def assert_no_error_and_no_other_host(self) -> None:
        self.assertEqual(self.errors, [])
        hosts = {urlsplit(url).netloc for url in self.requested if not url.startswith("data:")}
        self.assertEqual(hosts, {urlsplit(self.base_url).netloc})

    def close_what_is_open(self) -> None:
        """Escape, pressed again where it came before the page listened for it: a moment after it takes the focus."""
        opened = self.page.locator("[role=menu], [role=dialog]")
        for _ in range(10):
            self.page.keyboard.press("Escape")
            with suppress(AssertionError):
                expect(opened).to_have_count(0, timeout=1_500)
                return
        expect(opened).to_have_count(0)

    def test_a_query_shows_its_answer(self) -> None:
        self.post("/projects/", name="Moon landing")
        self.open_graphiql()

        self.run_operation("Look", "query Look { projects(first: 3) { nodes { id name } } }")

        self.expect_result('"Moon landing"')
        self.assert_no_error_and_no_other_host()

    def test_a_subscription_shows_what_changes_through_rest(self) -> None:
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
        # The first may be caught up on, for it is not known when the socket is ready; the second is live.
        for title in ("Launch", "Land"):
            self.post("/tasks/", project=project, title=title, due_date=due_date)
            self.expect_result(f'"{title}"')

        self.expect_result('"TASK_CREATED"')
        self.assert_no_error_and_no_other_host()

    def test_each_operation_of_the_tour_is_valid(self) -> None:
        self.open_graphiql()

        # GraphiQL sends the whole document, whichever operation is chosen: the server validates them all.
        self.page.get_by_label("Execute query").click()
        self.page.get_by_role("menuitem", name="Projects").click()

        self.expect_result('"projects"')
        expect(self.page.locator(".result-window")).not_to_contain_text("errors")
        self.assert_no_error_and_no_other_host()

    def test_menus_and_dialogs_keep_to_the_policy(self) -> None:
        self.open_graphiql()

        for label in ("Execute query", "Open short keys dialog", "Open settings dialog"):
            self.page.get_by_label(label).click()
            expect(self.page.locator(":is([role=menu], [role=dialog]):focus-within")).to_be_visible()
            self.close_what_is_open()

        self.assert_no_error_and_no_other_host()

    def test_operations_carry_the_csrf_token_of_the_cookie(self) -> None:
        with self.page.expect_request(lambda request: request.method == "POST") as sent:
            self.open_graphiql()

        [token] = [cookie["value"] for cookie in self.page.context.cookies() if cookie["name"] == "csrftoken"]
        self.assertEqual(sent.value.headers["x-csrftoken"], token)
