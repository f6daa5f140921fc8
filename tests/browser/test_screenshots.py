"""Make the pictures of the documentation, if TEST_SCREENSHOTS names a directory."""

from __future__ import annotations

import os
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock, skipUnless

from django.core.mail import EmailMultiAlternatives
from django.urls import reverse
from django.utils import timezone

from mailqueue_backend.envelope import META_KEY, Envelope, dumps, naive_local
from mailqueue_backend.history.models import Recipient, Status
from mailqueue_backend.queues.base import Settlement
from mailqueue_backend.queues.database.queue import Queue
from mailqueue_backend.queues.paused import pause
from tests import TOP
from tests.dashboard.test_hostile import image

from .cases import BrowserTestCase

ERROR = "450 4.2.1 <{0}>: mailbox busy"
LETTER = "Dear {0},\n\nthank you for your order {1}. It has left our warehouse today.\n\nYour Example Shop"
HTML = """<div style="font-family: sans-serif; max-width: 34rem"><img src="cid:logo" width="220" alt="Example Shop">
<h2 style="color: #205067">Thank you, {0}!</h2><p>Your order <b>{1}</b> has left our warehouse today.</p>
<p><a href="https://shop.example.org/orders/{1}" style="color: #205067">Follow your order</a></p>
<img src="https://tracker.example.com/pixel.gif" alt="(a remote picture, which is not loaded)"></div>"""
STATUSES = (
    (Status.ACCEPTED, "250 2.0.0 Ok: queued as 4Xy{1}Qz"),
    (Status.ACCEPTED, "250 2.0.0 Ok: queued as 4Xz{1}Qz"),
    (Status.WAITING, "450 4.2.1 <{0}>: mailbox busy"),
    (Status.ACCEPTED, "250 2.0.0 Ok: queued as 4Ya{1}Qz"),
    (Status.GIVEN_UP, "550 5.1.1 <{0}>: User unknown"),
)
NAMES = ("Ada", "Boris", "Carla", "Dmitri", "Ewa", "Fatima", "Goran", "Hana", "Ines", "Jun", "Kofi", "Leila")


@skipUnless(os.environ.get("TEST_SCREENSHOTS"), "TEST_SCREENSHOTS is not set")
@mock.patch.object(Queue, "warnings", return_value=[])
class ScreenshotTests(BrowserTestCase):
    def test_queues_list_and_message(self, warnings: Any) -> None:
        self.log_in()
        self.store()
        self.record()
        for scheme in ("light", "dark"):
            self.driver.execute_cdp_cmd(
                "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
            )
            self.visit("changelist")
            self.save(f"dashboard-queues-{scheme}", 420)
            self.visit("messages", "MAIL_5FQUEUE", "deferred")
            self.save(f"dashboard-list-{scheme}", 760)
            self.click("#result_list tbody th a")
            self.driver.set_window_size(1440, 1500)
            self.wait_for_frame()
            self.save(f"dashboard-message-{scheme}", 1500)
            self.driver.get(f"{self.live_server_url}{reverse('admin:mailqueue_history_recipient_changelist')}")
            self.save(f"history-{scheme}", 640)

    def store(self) -> None:
        logo = (TOP / "example" / "postbox" / "logo.png").read_bytes()
        for number, name in enumerate(NAMES):
            address, order = f"{name.lower()}@example.com", str(4711 + number)
            email = EmailMultiAlternatives(
                f"Your order {order} is on its way", LETTER.format(name, order), "shop@example.org", [address]
            )
            email.attach_alternative(HTML.format(name, order), "text/html")
            email.mixed_subtype = "related"
            email.attachments.append(image(raw=logo))
            email.attach(f"invoice-{order}.pdf", b"%PDF" * 5000, "application/pdf")
            created = naive_local(datetime.now() - timedelta(minutes=7 * (len(NAMES) - number)))
            meta = {"id": f"{0x4F2A90C1D7E3 + 7 * number:012x}", "attempts": 2, "last_error": ERROR.format(address)}
            self.queue.write(dumps(Envelope(email, created, {META_KEY: meta})))
        with self.queue.consumer(600) as consumer:
            taken = consumer.exchange(wanted=10).reservations
            consumer.exchange([Settlement(each, "bury") for each in taken[:1]])
            consumer.exchange([Settlement(each, "release", None, 3000) for each in taken[1:]])
        pause(self.queue, "the provider moves until 22:00")

    def record(self) -> None:
        """Write a history: a message to each name."""
        now = timezone.now()
        for number, name in enumerate(NAMES):
            status, reply = STATUSES[number % len(STATUSES)]
            Recipient.objects.create(
                address=f"{name.lower()}@example.com",
                message_id=f"<1796078455.{number}@shop.example.org>",
                mail_id=f"{0x4F2A90C1D7E3 + 7 * number:012x}",
                queue="MAIL_QUEUE",
                subject=f"Your order {4711 + number} is on its way",
                status=status,
                reply=reply.format(f"{name.lower()}@example.com", number),
                attempts=1 + number % 2,
                queued=now - timedelta(minutes=7 * number + 1),
                changed=now - timedelta(minutes=7 * number),
            )

    def wait_for_frame(self) -> None:
        """Wait until the browser shows the HTML of the message."""
        from selenium.webdriver.support import expected_conditions
        from selenium.webdriver.support.ui import WebDriverWait

        frame = self.driver.find_element("css selector", "iframe")
        self.driver.execute_script("arguments[0].scrollIntoView()", frame)
        WebDriverWait(self.driver, 10).until(expected_conditions.frame_to_be_available_and_switch_to_it(frame))
        WebDriverWait(self.driver, 10).until(lambda driver: "Thank you" in driver.page_source)
        self.driver.switch_to.default_content()
        self.driver.execute_script("window.scrollTo(0, 0)")
        time.sleep(0.5)  # to paint it

    def save(self, name: str, height: int) -> None:
        self.driver.set_window_size(1440, height)
        self.driver.save_screenshot(str(Path(os.environ["TEST_SCREENSHOTS"], f"{name}.png").absolute()))
