"""What the test runner does with a test that leaves a socket open."""

from __future__ import annotations

import socket
import warnings
from io import StringIO
from unittest import TestCase, TestResult, mock

from django.test import SimpleTestCase

from tests.leaks import LeakCheck


class Untidy(TestCase):
    def leave_open(self) -> None:
        socket.socket()

    def close(self) -> None:
        socket.socket().close()


class LeakCheckTests(SimpleTestCase):
    def run_once(self, name: str) -> TestResult:
        result = LeakCheck()
        with warnings.catch_warnings(), mock.patch("sys.stderr", new_callable=StringIO):
            warnings.simplefilter("error", ResourceWarning)
            Untidy(name).run(result)
        return result

    def test_test_that_leaves_a_socket_open_fails(self) -> None:
        ((_, traceback),) = self.run_once("leave_open").errors
        self.assertIn("Left open by this test or an earlier one: unclosed <socket.socket", traceback)

    def test_test_that_closes_it_does_not(self) -> None:
        self.assertEqual(self.run_once("close").errors, [])
