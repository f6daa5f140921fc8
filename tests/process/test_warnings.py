"""No warning is attributed to a file of this package: whole sites, each command run with all warnings shown."""

from __future__ import annotations

from django.test import SimpleTestCase, tag

from tests import services
from tests.sites.visit import ARRIVALS, KINDS, Visit, visit
from tests.smtp.inbox import Controller


@tag("slow")
@services.needs("aiosmtpd", Controller is not object)
class SitesTests(SimpleTestCase):
    def test_each_kind_of_site_delivers_without_a_warning_from_this_package(self) -> None:
        for kind in KINDS:
            with self.subTest(kind):
                seen = visit(kind)
                self.assertEqual(seen.our_warnings, [])
                self.assertEqual(seen.arrivals, ARRIVALS[kind])
                self.assertEqual(seen.said["django check"], "System check identified no issues (0 silenced).")
                amount = sum(map(len, ARRIVALS[kind]))
                summary = f"{amount} messages sent and 0 messages discarded out of {amount} messages."
                self.assertEqual(seen.said["django process_mail_queue"], summary)


class AttributionTests(SimpleTestCase):
    """The rule that attributes a warning to this package."""

    def test_file_before_the_category_decides(self) -> None:
        ours = "/site-packages/mailqueue_backend/mail/base.py:5: DeprecationWarning: old"
        theirs = "/site-packages/django/core/mail/__init__.py:5: DeprecationWarning: mailqueue_backend/ is old"
        seen = Visit("smtp", stderr=f"{ours}\n  source line\n{theirs}\n")
        self.assertEqual((seen.our_warnings, seen.warnings), ([ours], [ours, theirs]))
