"""Signing in and out in a browser, and its effect on an open GraphiQL."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from tests.browser.cases import BrowserCase
from tests.factories import UserFactory

PASSWORD = "Difference Engine"


class SignInTests(BrowserCase):
    environment = {"ACCESS": "closed"}

    def setUp(self) -> None:
        user = UserFactory(username="ada", first_name="Ada", last_name="Lovelace")
        user.set_password(PASSWORD)
        user.save()
        super().setUp()

    def sign_in(self, password: str) -> None:
        self.page.get_by_label("Username").fill("Ada")
        self.page.get_by_label("Password").fill(password)
        self.page.get_by_role("button", name="Sign in").click()

    def test_graphiql_works_from_signing_in_to_signing_out(self) -> None:
        self.page.goto(f"{self.base_url}/graphql/")
        self.sign_in(PASSWORD)
        expect(self.page).to_have_url(f"{self.base_url}/graphql/")

        self.run_operation("Me", "query Me { me { name } }")
        self.expect_result('"Ada Lovelace"')
        with self.page.expect_websocket() as opened:
            self.run_operation("Listen", "subscription Listen { events { kind } }")
        socket = opened.value
        socket.wait_for_event("framereceived")  # the acknowledgement
        self.assert_no_error_and_no_other_host()

        account = self.page.context.new_page()
        account.goto(f"{self.base_url}/accounts/sign-in/")
        with socket.expect_event("close"):
            account.get_by_role("button", name="Sign out").click()
        # The subscription and the socket end almost together. GraphiQL shows the end that it receives first.
        expect(self.page.locator(".result-window")).to_contain_text(re.compile("Sign in again|4401"))
        self.page.reload()
        expect(self.page.get_by_role("button", name="Sign in")).to_be_visible()

    def test_a_wrong_password_shows_an_error_and_does_not_sign_in(self) -> None:
        self.page.goto(f"{self.base_url}/graphql/")
        self.sign_in("analytical engine")
        expect(self.page.get_by_text("There is no account with this user name and password.")).to_be_visible()
        self.page.goto(f"{self.base_url}/graphql/")
        expect(self.page.get_by_role("button", name="Sign in")).to_be_visible()
