"""A site in this process, Chromium in front of it, and a drain that runs all the time."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import skipIf

from django.conf import settings
from django.contrib.auth.models import Permission, User
from django.contrib.staticfiles.testing import StaticLiveServerTestCase
from django.db import connections
from django.test import Client, override_settings, tag
from django.urls import reverse

from mailqueue_backend.queues import open_queue
from mailqueue_backend.queues.base import MessageQueue, Settlement
from tests.cases import BACKEND, drain, enqueue
from tests.dashboard.cases import payload
from tests.smtp import ScriptedServer, good

from . import chromium

_REASON = chromium.reason_to_skip()


@skipIf(_REASON, _REASON)
@tag("slow")
@override_settings(EMAIL_BACKEND=BACKEND)
class BrowserTestCase(StaticLiveServerTestCase):
    """Beside each test, a drain delivers the messages that a sender queues."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.driver = chromium.start()
        cls.addClassCleanup(cls.driver.quit)

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.log = Path(directory.name, "discards.log")
        smtp = ScriptedServer(good)
        smtp.__enter__()
        self.addCleanup(smtp.__exit__)
        changed = override_settings(MAIL_QUEUE_LOG_FILENAME=str(self.log), EMAIL_PORT=smtp.port)
        changed.enable()
        self.addCleanup(changed.disable)
        self.sent, self._stop = 0, threading.Event()
        self._drain = threading.Thread(target=self._deliver)
        self.addCleanup(self.stop_drain)

    def start_drain(self) -> None:
        self._drain.start()

    def stop_drain(self) -> None:
        self._stop.set()
        if self._drain.is_alive():
            self._drain.join(30)

    def _deliver(self) -> None:
        while not self._stop.wait(0.05):
            enqueue("Delivered at once")
            self.sent += drain().sent
        connections.close_all()

    @property
    def queue(self) -> MessageQueue:
        return open_queue("MAIL_QUEUE")

    def fill(self, *payloads: bytes, state: str = "due", delay: float = 3600) -> None:
        """Write payloads to a state, in which the drain leaves them alone unless it is "due"."""
        payloads = payloads or (payload(),)
        self.queue.write_many(*payloads)
        if state == "due":
            return
        with self.queue.consumer(600) as consumer:
            taken = consumer.exchange(wanted=len(payloads)).reservations
            how: Any = "bury" if state == "dead" else "release"
            consumer.exchange([Settlement(each, how, None, delay) for each in taken])

    def log_in(self, *codenames: str) -> None:
        """Log in with these permissions, or as a superuser without any argument."""
        user = User.objects.create_user(f"user {User.objects.count()}", is_staff=True, is_superuser=not codenames)
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
        client = Client()
        client.force_login(user)
        self.driver.get(f"{self.live_server_url}/static/admin/css/base.css")
        self.driver.delete_all_cookies()
        name = settings.SESSION_COOKIE_NAME
        self.driver.add_cookie({"name": name, "value": client.cookies[name].value})

    def visit(self, view: str, *args: Any) -> None:
        self.driver.get(self.live_server_url + reverse(f"admin:mailqueue_dashboard_queue_{view}", args=args))

    def all(self, selector: str) -> list[Any]:
        found: list[Any] = self.driver.find_elements("css selector", selector)
        return found

    def one(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    @property
    def text(self) -> str:
        """What is visible on the page."""
        text: str = self.one("body").text
        return text

    def click(self, selector: str) -> None:
        """Click, and wait until the next page is there."""
        with self.next_page():
            self.one(selector).click()

    @contextmanager
    def next_page(self) -> Iterator[None]:
        """Wait at the end for the page that follows."""
        self.driver.execute_script("window.isPreviousPage = true")
        yield
        arrived = "return !window.isPreviousPage && document.readyState === 'complete'"
        chromium.WebDriverWait(self.driver, 20).until(lambda driver: driver.execute_script(arrived))
