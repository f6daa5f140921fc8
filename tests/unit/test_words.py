"""Error descriptions, and the suppression of repeated log lines."""

from __future__ import annotations

import smtplib
import socket
import ssl
from unittest import mock

from django.test import SimpleTestCase

from mailqueue_backend.delivery import troubles
from mailqueue_backend.delivery.troubles import Troubles
from mailqueue_backend.delivery.verdict import Reply
from mailqueue_backend.delivery.words import count, duration, in_words, is_of_the_network


def untrusted() -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed (_ssl.c:1006)")
    error.verify_message = "self-signed certificate"
    return error


class WordsTests(SimpleTestCase):
    def test_errors(self) -> None:
        for error, words in (
            (ConnectionRefusedError(111, "Connection refused"), "connection refused"),
            (OSError(113, "No route to host"), "no route to host"),
            (
                socket.gaierror(-2, "Name or service not known"),
                "its name cannot be resolved: Name or service not known",
            ),
            (TimeoutError("timed out"), "no answer in time"),
            (TimeoutError(110, "Connection timed out"), "no answer in time"),
            (TimeoutError("The time for this message is over"), "The time for this message is over"),
            (untrusted(), "the server's certificate is not trusted: self-signed certificate"),
            (smtplib.SMTPAuthenticationError(535, b"5.7.8 Bad\nlogin"), "535 5.7.8 Bad login"),
            (smtplib.SMTPSenderRefused(450, b"4.7.1 too much", "a@x"), "450 4.7.1 too much"),
            (smtplib.SMTPDataError(554, b"no \xff"), "554 no \ufffd"),
            (
                smtplib.SMTPRecipientsRefused({"a@x": (550, b"no"), "b@x": (450, b"later")}),
                "a@x: 550 no; b@x: 450 later",
            ),
            (smtplib.SMTPServerDisconnected("Connection unexpectedly closed"), "Connection unexpectedly closed"),
            (Reply("MAIL", 530, "5.7.0 TLS first"), "530 5.7.0 TLS first"),
            (ValueError("a\nb"), "ValueError: a b"),
            ("nobody to send it to", "nobody to send it to"),
        ):
            with self.subTest(error=error):
                self.assertEqual(in_words(error), words)

    def test_network_errors_are_recognised(self) -> None:
        for error, network in (
            (ConnectionResetError(), True),
            (smtplib.SMTPServerDisconnected("gone"), True),
            (untrusted(), True),
            (FileNotFoundError("logo.png"), False),
            (ValueError("a bug"), False),
        ):
            with self.subTest(error=error):
                self.assertEqual(is_of_the_network(error), network)

    def test_durations_and_counts(self) -> None:
        for seconds, words in (
            (0, "0 seconds"),
            (1, "1 second"),
            (59.4, "59 seconds"),
            (60, "1 minute"),
            (239, "3 minutes"),
            (7300, "2 hours"),
            (200000, "2 days"),
        ):
            with self.subTest(seconds=seconds):
                self.assertEqual(duration(seconds), words)
        self.assertEqual((count(1, "message"), count(0, "message")), ("1 message", "0 messages"))


class TroublesTests(SimpleTestCase):
    def setUp(self) -> None:
        clock = mock.patch.object(troubles.time, "monotonic", side_effect=lambda: self.now)
        clock.start()
        self.addCleanup(clock.stop)
        self.now = 1000.0
        self.logged: list[str] = []
        self.troubles = Troubles()

    def run_with(self, *texts: str, over: str = "over") -> list[str]:
        """Report these troubles in one run, ten seconds after the last run; return the lines that were logged."""
        self.now += 10
        self.logged.clear()
        for text in texts:
            self.troubles.report(text, text, over, self.logged.append)
        self.troubles.end_run()
        return list(self.logged)

    def test_lasting_trouble_is_logged_once_and_again_after_ten_minutes(self) -> None:
        self.assertEqual(self.run_with("down"), ["down"])
        said = [self.run_with("down") for _ in range(60)]
        self.assertEqual(said[:59], [[]] * 59)
        self.assertEqual(said[59], ["down (in 61 runs, for 10 minutes)"])

    def test_end_of_a_trouble_is_logged_once(self) -> None:
        self.run_with("down")
        self.assertEqual([self.run_with(), self.run_with(), self.run_with("down")], [["over"], [], ["down"]])

    def test_trouble_without_an_end_is_not_logged_again_soon(self) -> None:
        self.run_with("refused", over="")
        self.assertEqual([self.run_with(), self.run_with("refused", over="")], [[], []])
        self.now += troubles.INTERVAL
        self.assertEqual([self.run_with(), self.run_with("refused", over="")], [[], ["refused"]])

    def test_same_trouble_twice_in_one_run_counts_once(self) -> None:
        self.run_with("down", "down")
        self.now += troubles.INTERVAL
        self.assertEqual(self.run_with("down"), ["down (in 2 runs, for 10 minutes)"])
