"""TLS and a login, with a real server: aiosmtpd."""

from __future__ import annotations

import logging
import os
import ssl
from typing import Any
from unittest import mock

from django.test import TestCase, override_settings

from mailqueue_backend.mail.smtp import QueuedEmailBackend
from tests.cases import drain, message
from tests.certificates import certificate, needs_openssl, server_context
from tests.services import needs
from tests.smtp import always
from tests.smtp.cases import ScriptedTestCase
from tests.smtp.inbox import Inbox, MailServer
from tests.wire.test_connections import slowly

try:
    from aiosmtpd.smtp import AuthResult
except ImportError:
    AuthResult = None  # type: ignore[assignment,misc]


@needs("aiosmtpd", AuthResult is not None)
@needs_openssl
class SecureTests(TestCase):
    """The certificate is trusted as the system's are: by SSL_CERT_FILE."""

    def setUp(self) -> None:
        super().setUp()
        trust = mock.patch.dict(os.environ, SSL_CERT_FILE=certificate()[0])
        trust.start()
        self.addCleanup(trust.stop)
        talk = logging.getLogger("mail.log")
        self.addCleanup(talk.setLevel, talk.level)
        talk.setLevel(logging.CRITICAL)
        self.logins: list[bytes] = []

    def serve(self, **kwargs: Any) -> None:
        def authenticator(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> Any:
            self.logins.append(data.login)
            return AuthResult(success=data.login == b"user" and data.password == b"secret", handled=False)

        self.inbox = Inbox()
        self.server = MailServer(self.inbox, authenticator=authenticator, **kwargs)
        self.server.start()
        self.addCleanup(self.server.stop, no_assert=True)

    def backend(self, **kwargs: Any) -> QueuedEmailBackend:
        backend = QueuedEmailBackend(
            "127.0.0.1", self.server.port, **{"username": "user", "password": "secret", "timeout": 10, **kwargs}
        )
        backend.send_messages([message("a"), message("b")])
        return backend

    def test_starttls_and_login(self) -> None:
        self.serve(tls_context=server_context(), require_starttls=True, auth_required=True)
        self.assertEqual(drain(self.backend(use_tls=True)).sent, 2)
        self.assertEqual(self.inbox.subjects, ["a", "b"])
        # EHLO before and after STARTTLS.
        self.assertEqual(self.inbox.connections, 2)

    def test_smtp_over_ssl_and_login(self) -> None:
        self.serve(ssl_context=server_context(), auth_require_tls=False)
        self.assertEqual(drain(self.backend(use_ssl=True)).sent, 2)
        self.assertEqual((self.inbox.subjects, self.inbox.connections), (["a", "b"], 1))
        self.assertEqual(self.logins, [b"user"])

    @override_settings(MAIL_QUEUE_RETRY_REJECTED=False)
    def test_wrong_password_is_no_refusal_of_a_message(self) -> None:
        self.serve(tls_context=server_context(), auth_required=True)
        backend = self.backend(use_tls=True, password="wrong")
        with self.assertLogs("mailqueue_backend.delivery", "WARNING") as logged:
            report = drain(backend)
        self.assertEqual((report.requeued, report.discarded, len(backend.que)), (0, 0, 2))
        self.assertIn("535", logged.output[0])
        self.assertNotIn("wrong", "".join(logged.output))
        self.assertEqual(drain(self.backend(use_tls=True)).sent, 4)

    def test_server_that_is_not_trusted(self) -> None:
        for kwargs in ({"use_tls": True}, {"use_ssl": True}):
            with self.subTest(kwargs=kwargs), mock.patch.dict(os.environ, SSL_CERT_FILE=os.devnull):
                if "use_tls" in kwargs:
                    self.serve(tls_context=server_context())
                else:
                    self.serve(ssl_context=server_context())
                with self.assertLogs("mailqueue_backend.delivery", "WARNING") as logged:
                    self.assertEqual(drain(self.backend(**kwargs)).sent, 0)
                self.assertIn("the server's certificate is not trusted: self-signed certificate", logged.output[0])
                self.assertEqual(self.inbox.received, [])


@needs_openssl
class WorkersTests(ScriptedTestCase):
    def test_share_one_ssl_context(self) -> None:
        self.serve(always("dot", slowly), context=server_context())
        self.enqueue(*map(str, range(60)))
        with (
            mock.patch.dict(os.environ, SSL_CERT_FILE=certificate()[0]),
            mock.patch("ssl.create_default_context", wraps=ssl.create_default_context) as made,
        ):
            report = self.drain(self.backend(use_tls=True))
        self.assertEqual((report.sent, self.smtp.connections, made.call_count), (60, 3, 1))
