"""The verdicts on replies of real servers."""

from __future__ import annotations

from django.test import SimpleTestCase

from mailqueue_backend.delivery.verdict import Reply, Step, Verdict

BLOCKED, MESSAGE, RECIPIENT, FULL, DOUBT = Verdict

#: (step, reply, verdict)
REPLIES: list[tuple[Step, str, Verdict]] = [
    # Login and TLS.
    ("MAIL", "530 5.7.0 Must issue a STARTTLS command first", BLOCKED),
    ("MAIL", "530 5.7.0 Authentication Required. For more information, go to …", BLOCKED),
    ("RCPT", "530 5.7.1 Client was not authenticated", BLOCKED),
    ("MAIL", "530 Authentication required", BLOCKED),
    ("MAIL", "534 5.7.9 Application-specific password required", BLOCKED),
    ("MAIL", "535 5.7.8 Username and Password not accepted", BLOCKED),
    ("MAIL", "535 5.7.0 Mailgun is not loving your login or password", BLOCKED),
    ("MAIL", "538 5.7.11 Encryption required for requested authentication mechanism", BLOCKED),
    # The message.
    ("MAIL", "552 5.3.4 Message size exceeds fixed limit", MESSAGE),
    ("dot", "552 5.3.4 Error: message file too big", MESSAGE),
    ("MAIL", "552 5.2.3 Message exceeds maximum fixed size", MESSAGE),
    ("dot", "552-5.2.3 Your message exceeded Google's message size limits.", MESSAGE),
    ("MAIL", "552 Message size exceeds maximum permitted", MESSAGE),
    ("dot", "552 sorry, that message size exceeds my databytes limit (#5.3.4)", MESSAGE),
    ("dot", "554 5.6.0 Message content rejected", MESSAGE),
    ("dot", "550 5.6.7 Non-ASCII addresses not permitted for envelope", MESSAGE),
    ("dot", "552 5.2.2 Mailbox full", DOUBT),
    ("MAIL", "552 You have exceeded your daily quota", DOUBT),
    ("MAIL", "554 5.6.0 no content yet", DOUBT),
    # The recipient.
    ("RCPT", "550 5.1.1 <no@example.org>: Recipient address rejected: User unknown", RECIPIENT),
    ("RCPT", "550-5.1.1 The email account that you tried to reach does not exist.", RECIPIENT),
    ("RCPT", "550 5.1.2 Host unknown", RECIPIENT),
    ("RCPT", "501 5.1.3 Bad recipient address syntax", RECIPIENT),
    ("RCPT", "551 5.1.6 The user has moved", RECIPIENT),
    ("RCPT", "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup", RECIPIENT),
    ("RCPT", "550 5.2.1 The email account that you tried to reach is disabled.", RECIPIENT),
    ("RCPT", "550 5.4.1 Recipient address rejected: Access denied.", RECIPIENT),
    ("RCPT", "550 sorry, no mailbox here by that name (#5.1.1)", RECIPIENT),
    ("RCPT", "550 Unrouteable address", RECIPIENT),
    ("RCPT", "550 Unknown user", RECIPIENT),
    ("RCPT", "550 No Such User Here", RECIPIENT),
    ("RCPT", "551 User not found", RECIPIENT),
    ("RCPT", "553 the mailbox does not exist", RECIPIENT),
    # The number of recipients.
    ("RCPT", "452 4.5.3 Error: too many recipients", FULL),
    ("RCPT", "552 5.5.3 Too many recipients", FULL),
    ("RCPT", "452 Too many recipients received this hour", FULL),
    ("RCPT", "452 4.2.2 The email account that you tried to reach is over quota", DOUBT),
    ("RCPT", "452 4.3.1 Insufficient system storage", DOUBT),
    # The site's account, address or rate: no message may be given up.
    ("RCPT", "550 5.2.1 The user you are trying to contact is receiving mail at a rate that …", DOUBT),
    ("MAIL", "550 5.1.8 Access denied, bad outbound sender", DOUBT),
    ("RCPT", "550 5.1.8 Access denied, bad outbound sender AS(42003)", DOUBT),
    (
        "dot",
        "550 5.1.90 Your message can't be sent because you've reached your daily limit for message recipients",
        DOUBT,
    ),
    ("RCPT", "550 5.4.1 [internal]: All relays failed", DOUBT),
    ("MAIL", "432 4.3.2 Concurrent connections limit exceeded", DOUBT),
    ("RCPT", "554 5.7.1 <unknown[192.0.2.1]>: Client host rejected: Access denied", DOUBT),
    ("RCPT", "554 5.7.1 <to@example.org>: Relay access denied", DOUBT),
    ("RCPT", "550 5.7.1 Relaying denied", DOUBT),
    ("RCPT", "550 relay not permitted", DOUBT),
    ("RCPT", "550 Sender verify failed", DOUBT),
    (
        "RCPT",
        "550-Verification failed for <site@example.org>\n550-The account or domain may not exist, they may be "
        "blacklisted, or missing the proper dns entries.\n550 Sender verify failed",
        DOUBT,
    ),
    ("RCPT", "550 Domain example.org has exceeded the max defers and failures per hour (5/5 (100%)) allowed.", DOUBT),
    ("MAIL", "550 Unauthenticated senders not allowed", DOUBT),
    ("RCPT", "550 The from address does not match a verified Sender Identity", DOUBT),
    ("RCPT", "553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)", DOUBT),
    ("MAIL", "553 5.7.1 <site@example.org>: Sender address rejected: not owned by user other@example.org", DOUBT),
    ("dot", "550-5.7.1 Our system has detected that this message is likely unsolicited mail.", DOUBT),
    ("MAIL", "421-4.7.0 Try again later, closing connection.", DOUBT),
    ("dot", "454 Throttling failure: Maximum sending rate exceeded.", DOUBT),
    ("dot", "554 Message rejected: Email address is not verified.", DOUBT),
    ("MAIL", "450 4.7.1 Error: too much mail from 192.0.2.1", DOUBT),
    ("RCPT", "450 4.1.1 <to@example.org>: Recipient address rejected: unverified address", DOUBT),
    ("RCPT", "450 5.1.1 two codes that contradict each other", DOUBT),
    ("DATA", "503 5.5.0 <DATA>: Data command rejected: Improper use of SMTP command pipelining", DOUBT),
    ("DATA", "554 5.5.1 Error: no valid recipients", DOUBT),
    # A mail service's API.
    ("HTTP", "400 Bad Request", MESSAGE),
    ("HTTP", "422 Unprocessable Content", MESSAGE),
    ("HTTP", "401 Unauthorized", DOUBT),
    ("HTTP", "429 Too Many Requests", DOUBT),
]


def reply(step: Step, line: str) -> Reply:
    """Parse the lines of a reply as smtplib does."""
    lines = [(each[:3], each[4:]) for each in line.split("\n")]
    return Reply(step, int(lines[0][0]), "\n".join(text for _, text in lines))


class VerdictTests(SimpleTestCase):
    def test_replies_of_real_servers(self) -> None:
        for step, line, verdict in REPLIES:
            with self.subTest(step=step, line=line):
                self.assertIs(reply(step, line).verdict, verdict)

    def test_refused_content_does_not_incriminate_the_account(self) -> None:
        for step, line, incriminates in (
            ("dot", "550-5.7.1 Our system has detected that this message is likely unsolicited mail.", False),
            ("dot", "554 5.7.1 Virus found", False),
            ("dot", "554 Message rejected", False),
            ("dot", "554 Message rejected: Email address is not verified.", True),
            ("dot", "550 5.7.1 Your account is suspended", True),
            ("dot", "554 5.7.0 Daily limit reached", True),
            ("dot", "550 5.1.90 You've reached your daily limit", True),
            ("dot", "454 Throttling failure: Maximum sending rate exceeded.", True),
            ("dot", "451 4.3.0 Try later", True),
            ("MAIL", "550 Unauthenticated senders not allowed", True),
            ("RCPT", "554 5.7.1 Relay access denied", True),
        ):
            with self.subTest(line=line):
                self.assertIs(reply(step, line).incriminates, incriminates)  # type: ignore[arg-type]

    def test_text_is_one_line(self) -> None:
        several = "550-5.1.1 The account\n550 5.1.1 does not exist."
        self.assertEqual(str(reply("RCPT", several)), "550 5.1.1 The account does not exist.")
