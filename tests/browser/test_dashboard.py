"""List, search, read and act in Chromium, while a drain runs."""

from __future__ import annotations

import time
from typing import Any

from django.contrib.admin.models import LogEntry

from mailqueue_backend.queues.paused import paused_reason
from tests.cases import message
from tests.dashboard.cases import SECRETS, payload
from tests.dashboard.test_hostile import image, with_html

from .cases import BrowserTestCase
from .chromium import Keys, RemoteServer

#: Everything by which HTML can load something, or connect to its server.
REMOTE = """
<html><head>
<meta http-equiv="refresh" content="0;url=http://{0}/refresh">
<link rel="preconnect" href="http://{0}/"><link rel="prefetch" href="http://{0}/prefetch">
<link rel="stylesheet" href="http://{0}/sheet.css"><link rel="icon" href="http://{0}/icon.png">
<style>@import url(http://{0}/import.css); body {{ background: url(http://{0}/background.png) }}
@font-face {{ font-family: x; src: url(http://{0}/font.woff) }} p {{ font-family: x; color: rgb(0, 128, 0) }}</style>
</head><body background="http://{0}/body.png" onload="new Image().src='http://{0}/onload'">
<p>Dear customer</p><img src="cid:logo" width="40" height="40">
<img src="http://{0}/image.png" srcset="http://{0}/image2.png 2x" onerror="new Image().src='http://{0}/onerror'">
<picture><source srcset="http://{0}/source.png"><img></picture><video poster="http://{0}/poster.png"></video>
<audio src="http://{0}/sound.mp3" autoplay></audio><iframe src="http://{0}/frame"></iframe>
<object data="http://{0}/object"></object><embed src="http://{0}/embed"><input type="image" src="http://{0}/input.png">
<svg><image href="http://{0}/svg.png"/></svg><script src="http://{0}/script.js"></script>
<script>fetch("http://{0}/fetch"); top.document.title = "broken out";</script>
<form action="http://{0}/form"><button id="send">Send</button></form>
<a id="link" href="http://{0}/link">Link</a> <a id="out" target="_top" href="http://{0}/top">Out</a>
</body></html>
"""


class ReadingTests(BrowserTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.log_in()

    def test_queues_list_search_and_message(self) -> None:
        mails = [payload(message(f"Number {number:03}"), id=f"{number:012x}", attempts=1) for number in range(120)]
        self.fill(*mails, state="deferred")
        self.start_drain()
        self.visit("changelist")
        self.click("a[aria-label='120 deferred in MAIL_QUEUE']")
        self.assertEqual(len(self.all("#result_list tbody tr")), 50)
        self.click("a[rel=next]")
        self.click("a[rel=next]")
        self.assertEqual(len(self.all("#result_list tbody tr")), 20)
        self.one("input[name=q]").send_keys("number 077")
        self.click("form[role=search] button")
        self.assertEqual(len(self.all("#result_list tbody tr")), 1)
        self.click("#result_list tbody th a")
        for text in ("Message 00000000004d", "Number 077", "to@example.com", "Body"):
            self.assertIn(text, self.text)
        self.stop_drain()
        self.assertGreater(self.sent, 0)
        self.assertEqual(LogEntry.objects.count(), 1)

    def read(self, markup: str) -> None:
        """Open a message, and enter its frame."""
        self.fill(payload(with_html(markup, image())), state="dead")
        self.visit("messages", "MAIL_5FQUEUE", "dead")
        self.click("#result_list tbody th a")
        self.driver.switch_to.frame(self.one("iframe"))
        self.addCleanup(self.driver.switch_to.default_content)

    def test_shows_an_inline_image_and_loads_nothing(self) -> None:
        with RemoteServer() as remote:
            self.driver.get(f"data:text/html,<img src='http://{remote.address}/'>")
            time.sleep(1)
            self.assertTrue(remote.asked, "the server must notice what a page loads")
            remote.asked.clear()
            self.read(REMOTE.format(remote.address))
            self.assertIn("Dear customer", self.text)
            self.assertEqual(self.natural_width("img[width='40']"), 1)
            self.assertEqual(self.one("p").value_of_css_property("color"), "rgba(0, 128, 0, 1)")
            for selector in ("#send", "#out", "#link"):
                self.one(selector).click()
                time.sleep(0.5)
            self.assertEqual(remote.asked, [])
            self.driver.switch_to.default_content()
            self.assertIn("Message 0123456789ab", self.driver.title)

    def natural_width(self, selector: str) -> Any:
        return self.one(selector).get_property("naturalWidth")


class ActingTests(BrowserTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.log_in()

    def act(self, action: str, state: str, *others: str) -> None:
        """Select the first message, click, and confirm."""
        self.visit("messages", "MAIL_5FQUEUE", state)
        self.one("input[name=message]").click()
        self.click(f"button[value={action}]")
        self.assertIn(f"{action.capitalize()} 1 {state} message?", self.text)
        self.click("button.default")

    def test_each_action_while_a_drain_runs(self) -> None:
        self.fill(payload(id="a" * 12), payload(id="b" * 12), state="dead")
        self.fill(payload(id="c" * 12, attempts=1), state="deferred")
        self.start_drain()
        self.act("discard", "dead")
        self.assertIn("1 message discarded.", self.text)
        self.act("revive", "dead")
        self.assertIn("1 message revived.", self.text)
        self.act("retry", "deferred")
        self.assertIn("1 message retried.", self.text)
        deadline = time.monotonic() + 20
        while any(self.queue.counts()) and time.monotonic() < deadline:
            time.sleep(0.1)
        self.stop_drain()
        self.assertFalse(any(self.queue.counts()))
        self.assertIn("a" * 12, self.log.read_text(encoding="utf-8"))
        self.assertEqual(LogEntry.objects.count(), 3)

    def test_all_messages_of_a_page_and_of_a_state(self) -> None:
        self.fill(*[payload(id=f"{number:012x}") for number in range(60)], state="dead")
        self.visit("messages", "MAIL_5FQUEUE", "dead")
        self.one("#select-all").click()
        self.click("button[value=discard]")
        self.assertIn("Discard 50 dead messages?", self.text)
        self.click("button.default")
        self.assertEqual(self.queue.counts().dead, 10)
        self.click("button[value=revive][aria-describedby=all]")
        self.assertIn("Revive all 10 dead messages?", self.text)
        self.click("button.default")
        self.assertEqual(self.queue.counts().due, 10)

    def test_pausing_stops_a_drain_and_resuming_starts_it(self) -> None:
        self.start_drain()
        self.visit("changelist")
        self.click("button[aria-label='Pause MAIL_QUEUE']")
        self.one("#reason").send_keys("provider moves")
        self.click("button.default")
        self.assertIn("provider moves", self.text)
        self.assertEqual(paused_reason(self.queue), "provider moves")
        time.sleep(0.5)
        paused_at = self.sent
        time.sleep(1)
        self.assertEqual(self.sent, paused_at)
        self.click("button[aria-label='Resume MAIL_QUEUE']")
        self.click("button.default")
        deadline = time.monotonic() + 20
        while self.sent == paused_at and time.monotonic() < deadline:
            time.sleep(0.1)
        self.assertGreater(self.sent, paused_at)


class PermissionTests(BrowserTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.fill(payload(last_error="550 5.1.1 <clerk@example.com> rejected"), state="dead")

    def look(self) -> str:
        """Return the text and the markup of the pages that a user sees while a drain runs."""
        self.start_drain()
        self.visit("changelist")
        seen = self.text + self.driver.page_source
        self.visit("messages", "MAIL_5FQUEUE", "dead")
        return seen + self.text + self.driver.page_source

    def test_a_viewer_sees_numbers_only(self) -> None:
        self.log_in("view_queue")
        seen = self.look()
        self.assertIn("550 5.1.1 [address] rejected", seen)
        self.assertFalse([secret for secret in SECRETS if secret in seen])
        self.assertEqual(
            self.all(".mailqueue form[role=search], .mailqueue input[type=checkbox], .mailqueue #result_list a"), []
        )

    def test_a_reader_searches_and_reads_but_has_no_buttons(self) -> None:
        self.log_in("view_queue", "read_messages")
        self.assertIn("Reset your password", self.look())
        self.assertEqual(self.all(".mailqueue button[name=action]"), [])
        self.click("#result_list tbody th a")
        self.assertIn("Your code 4711", self.text)
        self.assertEqual(self.all(".mailqueue button[name=action]"), [])

    def test_an_actor_acts_without_reading(self) -> None:
        self.log_in("view_queue", "act_on_messages")
        seen = self.look()
        self.assertFalse([secret for secret in SECRETS if secret in seen])
        self.one("input[name=message]").click()
        self.click("button[value=discard]")
        self.assertNotIn("clerk@example.com", self.driver.page_source)
        self.click("button.default")
        self.assertEqual(self.queue.counts().dead, 0)

    def test_another_user_is_refused(self) -> None:
        self.log_in("act_on_messages")
        self.assertIn("403", self.look())


class KeyboardTests(BrowserTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.log_in()
        self.fill(payload(with_html("<b>Hi</b>")), state="dead")
        self.start_drain()

    def press(self, keys: str) -> None:
        self.driver.switch_to.active_element.send_keys(keys)

    def press_backwards(self, times: int) -> None:
        for _ in range(times):
            self.press(Keys.SHIFT + Keys.TAB)

    def press_enter(self) -> None:
        """Press Enter, and wait for the next page."""
        with self.next_page():
            self.press(Keys.ENTER)

    def test_a_message_is_found_and_discarded_without_a_mouse(self) -> None:
        self.visit("messages", "MAIL_5FQUEUE", "dead")
        self.one("#q").send_keys("")
        self.press("subject")
        self.press_enter()
        self.one("#q").send_keys("")
        names = []
        for _ in range(7):
            self.press(Keys.TAB)
            names.append(self.driver.switch_to.active_element.accessible_name)
        order = ["Search dead messages", "Show all", "Select all messages on this page", "Select message 0123456789ab"]
        self.assertEqual(names, [*order, "0123456789ab", "Discard…", "Revive…"])
        self.press_backwards(3)
        self.press(Keys.SPACE)
        self.press(Keys.TAB)
        self.press(Keys.TAB)
        self.press_enter()
        self.one("button.default").send_keys("")
        self.press_enter()
        self.assertEqual(self.queue.counts().dead, 0)

    def test_everything_has_a_name_and_a_role_for_screen_readers(self) -> None:
        self.visit("changelist")
        self.check_names()
        self.visit("messages", "MAIL_5FQUEUE", "dead")
        self.check_names()
        self.assertEqual(self.one(".mailqueue [aria-current=page]").text, "1 dead")
        self.click("#result_list tbody th a")
        self.check_names()
        self.assertEqual(self.one("iframe").accessible_name, "The HTML of the message")

    def check_names(self) -> None:
        for element in self.all(
            ".mailqueue a, .mailqueue button, .mailqueue iframe, .mailqueue table, .mailqueue input:not([type=hidden])"
        ):
            self.assertTrue(element.accessible_name, element.get_attribute("outerHTML"))
        self.assertEqual(self.all(".mailqueue th:not([scope])"), [])
