"""The base class of the tests in a browser: Chromium on a running server, under our Content-Security-Policy."""

from __future__ import annotations

import os
import shutil
import unittest
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import ConsoleMessage, Page, expect, sync_playwright

from tests.cases import ServerCase

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# Added to Playwright's own flags, which already keep Chromium from contacting its maker's servers.
CHROMIUM_FLAGS = ["--disable-gpu", "--disable-quic"]
LOG_VIOLATIONS = """
addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI }) =>
  console.error(`${violatedDirective} blocked ${blockedURI}`));
"""

expect.set_options(timeout=15_000)


@pytest.mark.slow
@unittest.skipIf(CHROMIUM is None and os.environ.get("CI") != "true", "no Chromium is installed")
class BrowserCase(ServerCase):
    """Tests create data over HTTP: Playwright runs an event loop in this thread, where Django refuses ORM queries."""

    def setUp(self) -> None:
        super().setUp()
        self.assertIsNotNone(CHROMIUM, "CI must install a Chromium")
        playwright = sync_playwright().start()
        self.addCleanup(playwright.stop)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        self.addCleanup(browser.close)
        self.api = playwright.request.new_context(base_url=self.base_url)
        self.page = browser.new_context().new_page()
        self.errors: list[str] = []
        self.requested: list[str] = []
        self.watch(self.page)

    def watch(self, page: Page) -> None:
        def record_error(message: ConsoleMessage) -> None:
            if message.type == "error":
                self.errors.append(message.text)

        page.add_init_script(LOG_VIOLATIONS)
        page.on("console", record_error)
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
        # GraphiQL parses the text a moment later. Until then it runs it under the previous operation name.
        expect(self.page.get_by_role("tab", selected=True)).to_have_text(name)
        self.page.keyboard.press("Control+Enter")

    def expect_result(self, text: str) -> None:
        expect(self.page.locator(".result-window")).to_contain_text(text)

    def assert_no_error_and_no_other_host(self) -> None:
        self.assertEqual(self.errors, [])
        hosts = {urlsplit(url).netloc for url in self.requested if not url.startswith("data:")}
        self.assertEqual(hosts, {urlsplit(self.base_url).netloc})
