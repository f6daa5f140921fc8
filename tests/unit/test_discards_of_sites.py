"""The discard log does not depend on the site's logging configuration."""

from __future__ import annotations

import logging
import subprocess
import sys
import tempfile
from io import StringIO
from pathlib import Path
from unittest import mock

from django.test import SimpleTestCase, override_settings

from mailqueue_backend.discards import LOGGER, attach_handler, log_discard
from mailqueue_backend.errors import DiscardLogError
from tests.unit.test_discards import DISCARD


class SiteLoggingTests(SimpleTestCase):
    """The line is written whatever the site's logging configuration says."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.log = Path(directory.name, "discards.log")
        settings = override_settings(MAIL_QUEUE_LOG_FILENAME=self.log)
        settings.enable()
        self.addCleanup(settings.disable)

    def assert_logged(self) -> None:
        log_discard(DISCARD)
        self.assertEqual(len(self.log.read_text().splitlines()), 1)

    def test_disabled_logger(self) -> None:
        with mock.patch.object(LOGGER, "disabled", True):
            self.assert_logged()

    def test_higher_level_of_a_parent(self) -> None:
        parent = logging.getLogger("smtp")
        self.addCleanup(parent.setLevel, parent.level)
        parent.setLevel(logging.CRITICAL)
        self.assert_logged()

    def test_logging_that_is_disabled(self) -> None:
        self.addCleanup(logging.disable, logging.NOTSET)
        logging.disable()
        self.assert_logged()

    def test_configuration_that_removes_all_handlers(self) -> None:
        code = (
            "import logging.config, sys; from django.conf import settings;"
            "settings.configure(MAIL_QUEUE_LOG_FILENAME=sys.argv[1]);"
            "from tests.unit.test_discards import *; attach_handler();"
            "logging.config.dictConfig({'version': 1, 'loggers': {'smtp.mail_queue': {'handlers': []}}});"
            "log_discard(DISCARD)"
        )
        subprocess.run([sys.executable, "-c", code, str(self.log)], check=True, stderr=subprocess.DEVNULL)
        self.assertEqual(len(self.log.read_text().splitlines()), 1)

    def test_handlers_of_the_site_get_the_record_once(self) -> None:
        with self.assertLogs(LOGGER) as logs:
            LOGGER.addHandler(attach_handler())  # assertLogs() has removed it
            self.assert_logged()
        self.assertEqual(len(logs.records), 1)
        self.assertIn("Message Expired", logs.output[0])

    def test_handler_of_the_site_that_raises_changes_nothing(self) -> None:
        broken = logging.NullHandler()
        LOGGER.addHandler(broken)
        self.addCleanup(LOGGER.removeHandler, broken)
        with (
            mock.patch.object(broken, "handle", side_effect=ConnectionRefusedError),
            mock.patch("sys.stderr", new_callable=StringIO) as stderr,
        ):
            self.assert_logged()
        self.assertIn("ConnectionRefusedError", stderr.getvalue())

    def test_filter_that_drops_the_line_is_an_error(self) -> None:
        handler = attach_handler()
        handler.addFilter(_reject)
        self.addCleanup(handler.removeFilter, _reject)
        with self.assertRaisesMessage(DiscardLogError, "a filter of its handler has rejected the line"):
            log_discard(DISCARD)

    def test_filter_that_masks_values_masks_the_line(self) -> None:
        def mask(record: logging.LogRecord) -> bool:
            assert isinstance(record.args, tuple)
            record.args = (*record.args[:2], "***", *record.args[3:])
            return False

        LOGGER.addFilter(mask)
        self.addCleanup(LOGGER.removeFilter, mask)
        self.assert_logged()
        self.assertIn("Subject: ***", self.log.read_text())

    def test_line_of_a_hook_is_written(self) -> None:
        attach_handler()
        LOGGER.warning("Given up after three tries")
        self.assertIn("Given up", self.log.read_text())


def _reject(record: logging.LogRecord) -> bool:
    return False
