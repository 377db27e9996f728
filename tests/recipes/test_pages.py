"""The recipes that are pages, in Chromium, served from our own origin."""

from __future__ import annotations

import re

from django.conf import settings
from django.test import Client
from playwright.sync_api import expect

from tests.browser.cases import BrowserCase
from tests.recipes.cases import TIMEOUT_S, RecipeCase, RecoveryTests, recipe

HAS_LINES = """([word, count]) =>
  [...document.querySelectorAll("li")].filter((line) => line.innerText.startsWith(word)).length >= count
"""


class PageCase(RecipeCase, BrowserCase):
    recipe_name: str

    def open_recipe(self) -> PageCase:
        address = f"{self.base_url}/recipe.html"
        # Playwright serves the page, so Chromium does not know that its address is local, and asks for this permission.
        self.page.context.grant_permissions(["local-network-access"], origin=self.base_url)
        self.page.route(address, lambda route: route.fulfill(body=recipe(self.recipe_name), content_type="text/html"))
        self.page.goto(address)
        return self

    def cursors(self, word: str) -> list[str]:
        lines = [line.split() for line in self.page.locator("li").all_inner_texts()]
        return [line[1] for line in lines if line[0] == word]

    def wait_for(self, word: str, count: int) -> None:
        self.page.wait_for_function(HAS_LINES, arg=[word, count], timeout=TIMEOUT_S * 1000)

    def wait_for_end(self) -> str:
        ended = self.page.locator("li", has_text=re.compile("^(closed|refused) with"))
        expect(ended).to_have_count(1, timeout=TIMEOUT_S * 1000)
        return ended.inner_text()


class SocketTests(RecoveryTests, PageCase):
    recipe_name = "socket.html"
    last_line = "^closed with 4401$"

    def start(self) -> PageCase:
        self.page.add_init_script(f"sessionStorage.setItem('token', '{self.token}')")
        return self.open_recipe()


class EventSourceTests(RecoveryTests, PageCase):
    recipe_name = "events.html"
    last_line = "^refused with 401$"

    def start(self) -> PageCase:
        self.session = Client()
        self.in_database(lambda: self.session.force_login(self.membership.user))
        value = self.session.cookies[settings.SESSION_COOKIE_NAME].value
        cookie = {"name": settings.SESSION_COOKIE_NAME, "value": value, "url": self.base_url}
        self.page.context.add_cookies([cookie])
        return self.open_recipe()

    def revoke(self) -> None:
        self.in_database(lambda: self.session.post("/accounts/sign-out/"))
