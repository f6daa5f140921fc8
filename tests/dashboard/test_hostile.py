"""Mail that attacks the reader: markup, names of files, huge texts, deep structures, remote content."""

from __future__ import annotations

from email.message import MIMEPart
from email.mime.image import MIMEImage
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from typing import Any
from unittest import mock

from django.core.mail import EmailMessage, EmailMultiAlternatives

from mailqueue_backend.dashboard import content, html
from mailqueue_backend.dashboard.content import file_name
from mailqueue_backend.dashboard.views import messages
from mailqueue_backend.envelope.compat import USES_LEGACY_API
from tests.cases import message

from .cases import DashboardTestCase, payload

SCRIPT = "</pre></dd><script>alert(1)</script>"
#: A picture of one pixel.
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010804000000b51c0c020000000b4944415478da63fcff1f00030302"
    "00efa2a75b0000000049454e44ae426082"
)


def with_html(markup: str, *attachments: Any) -> EmailMultiAlternatives:
    email = EmailMultiAlternatives("Subject", "Text", "from@example.com", ["to@example.com"])
    email.attach_alternative(markup, "text/html")
    email.attachments += attachments  # attach() warns of MIMEBase since Django 6.1
    return email


def image(cid: str = "<logo>", kind: str = "png", raw: bytes = PIXEL) -> Any:
    # Django < 6.0: a MIMEPart cannot be attached.
    if USES_LEGACY_API:
        legacy = MIMEImage(raw, kind)
        legacy.add_header("Content-ID", cid)
        return legacy
    part = MIMEPart()
    part.set_content(raw, "image", kind, cid=cid)
    return part


class Unrenderable(EmailMessage):
    """A site's message that cannot be composed."""

    def message(self, **kwargs: Any) -> Any:
        raise ZeroDivisionError("<b>no")


class HostileTestCase(DashboardTestCase):
    def show(self, email: Any) -> Any:
        self.fill(payload(email))
        return self.opened()

    def part(self, view: str, *args: Any) -> Any:
        """Return a part of the message that is queued."""
        return self.get(view, "MAIL_QUEUE", self.opened().context["part"], *args)

    def frame(self, email: Any) -> Any:
        """Return the document with the HTML of a message."""
        self.fill(payload(email))
        return self.part("html")


class MarkupTests(HostileTestCase):
    def test_markup_in_every_text_is_escaped(self) -> None:
        email = message(
            SCRIPT,
            [f'"{SCRIPT}" <to@example.com>'],
            headers={"X-Evil": SCRIPT, "X-Old": "=?utf-8?q?=3Cscript=3Ealert?="},
        )
        email.body = SCRIPT
        email.attach(f"{SCRIPT}.txt", SCRIPT, "text/x<script>alert")
        self.fill(payload(email, last_error=SCRIPT))
        for page in (self.get("messages", "MAIL_QUEUE", "due"), self.get("changelist"), self.opened()):
            self.assertNotContains(page, "<script>alert")
            self.assertContains(page, "&lt;script&gt;alert")

    def test_encoded_headers_are_decoded(self) -> None:
        email = message("caf\u00e9", headers={"X-A": "=?utf-8?q?caf=C3=A9?= au =?x-klingon?q?lait?="})
        headers = dict(self.show(email).context["content"].headers)
        self.assertEqual(headers["Subject"], "caf\u00e9")
        self.assertIn("lait", headers["X-A"])

    def test_control_characters_are_shown(self) -> None:
        email = message("innocent\u202egnp.exe")
        self.assertContains(self.show(email), r"innocent\u202egnp.exe")

    def test_what_cannot_be_composed_shows_why(self) -> None:
        response = self.show(Unrenderable("Subject", "Text", "from@example.com", ["to@example.com"]))
        self.assertContains(response, "raised ZeroDivisionError: &lt;b&gt;no")
        self.assertNotContains(response, "Headers")


class FrameTests(HostileTestCase):
    def test_html_is_a_document_of_its_own_that_may_do_nothing(self) -> None:
        response = self.frame(with_html(SCRIPT))
        policy = "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'"
        for name, value in {
            "Content-Security-Policy": policy,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "X-Frame-Options": "SAMEORIGIN",
            "Content-Type": "text/html; charset=utf-8",
        }.items():
            self.assertEqual(response[name], value)
        self.assertIn("no-store", response["Cache-Control"])

    def test_its_page_shows_it_in_a_sandbox_that_stays_on_this_site(self) -> None:
        response = self.show(with_html("<b>Hi</b>"))
        self.assertContains(response, 'sandbox referrerpolicy="no-referrer"')
        self.assertContains(response, """<meta http-equiv="Content-Security-Policy" content="frame-src 'self'">""")
        self.assertNotContains(response, "<b>Hi</b>")

    def test_the_images_of_the_message_are_shown(self) -> None:
        markup = "<img src='cid:logo'><img src=cid:a%40b><img src=\"CID:other\">"
        response = self.frame(with_html(markup, image(), image("<a@b>", "gif")))
        self.assertContains(response, "<img src='data:image/png;base64,iVBORw0KGgo")
        self.assertContains(response, "<img src=data:image/gif;base64,iVBORw0KGgo")
        self.assertContains(response, 'src="CID:other"')

    def test_only_images_are_shown(self) -> None:
        part = image(kind="svg+xml", raw=b"<svg onload=alert(1)>")
        self.assertNotContains(self.frame(with_html("<img src='cid:logo'>", part)), "data:")

    def test_an_image_that_is_repeated_takes_a_limited_size(self) -> None:
        with mock.patch.object(html, "IMAGE_BYTES", 3 * len(PIXEL)):
            response = self.frame(with_html("<img src='cid:logo'>" * 10, image()))
        self.assertContains(response, "data:image/png", count=3)

    def test_links_and_frames_connect_to_nothing(self) -> None:
        markup = "<LINK rel=preconnect HREF=//x><a title=''href=//x>Click</a><iframe src=//x></iframe>"
        response = self.frame(with_html(markup))
        inert = "<without-LINK rel=preconnect data-href=//x><a title=''data-href=//x>Click</a><without-iframe src=//x>"
        self.assertContains(response, inert)

    def test_long_html_is_cut_and_said_to_be(self) -> None:
        with mock.patch.object(html, "HTML_LENGTH", 10), mock.patch.object(messages, "HTML_LENGTH", 10):
            self.assertEqual(self.frame(with_html("0123456789abc")).content, b"0123456789")
            self.assertContains(self.opened(), "The HTML is longer")

    def test_a_message_of_html_alone_is_shown(self) -> None:
        email = message()
        email.body, email.content_subtype = "<b>Only</b>", "html"
        self.assertEqual(self.frame(email).content.strip(), b"<b>Only</b>")

    def test_a_message_without_html_has_no_frame(self) -> None:
        self.fill()
        self.get("html", "MAIL_QUEUE", self.opened().context["part"], status=404)


class AttachmentTests(HostileTestCase):
    def test_is_downloaded_and_never_shown(self) -> None:
        email = message()
        email.attach("page.html", "<script>alert(1)</script>", "text/html")
        self.fill(payload(email))
        response = self.part("attachment", 0)
        self.assertEqual(response.content, b"<script>alert(1)</script>")
        self.assertEqual(response["Content-Type"], "application/octet-stream")
        self.assertEqual(response["Content-Disposition"], 'attachment; filename="page.html"')
        self.assertEqual(response["X-Content-Type-Options"], "nosniff")
        self.assertIn("sandbox", response["Content-Security-Policy"])
        self.get("attachment", "MAIL_QUEUE", self.opened().context["part"], 7, status=404)

    def test_file_names_have_no_path_and_no_control_characters(self) -> None:
        for name, expected in (
            ("../../etc/passwd", "passwd"),
            (r"..\..\boot.ini", "boot.ini"),
            ("a\r\nSet-Cookie: x.txt", "aSet-Cookie: x.txt"),
            ("/", "attachment"),
            ("..", "attachment"),
            (".htaccess", "htaccess"),
            ("\u202etxt.exe", "txt.exe"),
            ("x" * 500 + ".pdf", "x" * 96 + ".pdf"),
            (None, "attachment"),
        ):
            with self.subTest(name):
                self.assertEqual(file_name(name), expected)

    def test_a_hostile_name_adds_no_header(self) -> None:
        email = message()
        email.attach('../a"\r\nSet-Cookie: x\u20ac.txt', b"data", "text/plain; x\r\nSet-Cookie: y")
        self.fill(payload(email))
        with mock.patch.object(type(email), "message", return_value=MIMEText("Text")):
            response = self.part("attachment", 0)
        self.assertNotIn("Set-Cookie", response.headers)
        self.assertTrue(response["Content-Disposition"].startswith("attachment;"))

    def test_parts_that_a_site_has_made_itself_are_listed(self) -> None:
        self.fill(payload(with_html("<b>Hi</b>", image(), MIMEText("second text"))))
        names = [part.content_type for part in self.opened().context["content"].attachments]
        self.assertEqual(names, ["image/png", "text/plain"])
        self.assertEqual(self.part("attachment", 0).content, PIXEL)


class BoundTests(HostileTestCase):
    def test_a_long_text_is_cut_and_said_to_be(self) -> None:
        email = message()
        email.body = "x" * 300_000
        response = self.show(email)
        self.assertContains(response, "The text is longer")
        self.assertLess(len(response.content), 150_000)

    def test_many_headers_and_parts_are_cut(self) -> None:
        email = message(headers={f"X-{number}": "y" * 5000 for number in range(300)})
        for number in range(500):
            email.attach(f"{number}.txt", "z", "text/plain")
        found = self.show(email).context["content"]
        self.assertLessEqual(len(found.headers), content.HEADERS)
        self.assertLessEqual(max(len(value) for _, value in found.headers), content.HEADER_LENGTH)
        self.assertEqual(len(found.attachments), content.PARTS)

    def test_a_deep_structure_is_not_followed_to_its_end(self) -> None:
        inner: Any = MIMEText("core")
        for _ in range(50):
            outer = MIMEMultipart()
            outer.attach(inner)
            inner = outer
        self.fill(payload(with_html("<b>Hi</b>", inner)))
        with mock.patch.object(content, "PARTS", 10):
            found = self.opened().context["content"]
        self.assertEqual((found.text.text.strip(), found.attachments), ("Text", []))

    def test_an_attached_mail_is_not_parsed(self) -> None:
        bomb = "".join(f'Content-Type: multipart/mixed; boundary="{n}"\n\n--{n}\n' for n in range(200)) + "x\n" * 50_000
        email = message()
        email.attach("forwarded.eml", bomb.encode(), "message/rfc822")
        with mock.patch("email.feedparser.FeedParser.feed", side_effect=AssertionError("parsed")):
            self.assertContains(self.show(email), "forwarded.eml")

    def test_a_message_that_is_too_big_is_not_shown(self) -> None:
        with mock.patch.object(content, "MESSAGE_BYTES", 100):
            self.assertContains(self.show(message()), "at most 100 are shown")

    def test_texts_in_unknown_or_wrong_charsets_are_shown(self) -> None:
        part = MIMEText("caf\u00e9", "plain", "utf-8")
        part.set_param("charset", "klingon")
        email = with_html("<b>Hi</b>")
        with mock.patch.object(type(email), "message", return_value=part):
            self.assertContains(self.show(email), "caf\u00e9")
