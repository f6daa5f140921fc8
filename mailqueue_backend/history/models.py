"""The table of the history: one row for each recipient of each message."""

from __future__ import annotations

from datetime import datetime

from django.db import models


class Status(models.TextChoices):
    """What became of a message for one recipient. Whether the mail has arrived, only the recipient's server knows."""

    QUEUED = "queued", "queued"
    WAITING = "waiting", "waiting for the next attempt"
    ACCEPTED = "accepted", "accepted by the server"
    GIVEN_UP = "given up", "given up"
    SET_ASIDE = "set aside", "set aside"


#: After these, no further attempt is made.
FINAL = (Status.ACCEPTED, Status.GIVEN_UP, Status.SET_ASIDE)


class Recipient(models.Model):
    """A recipient of a message. The message itself is not stored.

    ``message_id`` is the Message-ID; for a message that has none when it is queued, such as the relay's, or a very long
    one, it is the id in the queue, so that the pair of message and address is always unique.
    """

    #: The bare address, its domain in lower case and ASCII.
    address = models.CharField(max_length=254)
    message_id = models.CharField("Message-ID", max_length=255)
    #: Twelve hexadecimal digits, which the log shows, too.
    mail_id = models.CharField("id", max_length=12)
    queue = models.CharField(max_length=200)
    #: Empty if MAIL_QUEUE_HISTORY_SUBJECTS is False.
    subject = models.CharField(max_length=255, blank=True)
    status = models.CharField(max_length=20, choices=Status.choices)
    #: The server's last reply; empty if there was none.
    reply = models.TextField(blank=True)
    #: Why the server has not accepted the message for this recipient; empty if it has.
    error = models.TextField(blank=True)
    attempts = models.PositiveIntegerField(default=0)
    queued = models.DateTimeField()
    #: When the row was written last.
    changed = models.DateTimeField()

    class Meta:
        verbose_name = "recipient"
        # Newest first, without an index of its own.
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["message_id", "address"], name="mailqueue_history_once"),
        ]
        indexes = [
            models.Index(fields=["address"], name="mailqueue_history_address"),
            models.Index(fields=["mail_id"], name="mailqueue_history_mail_id"),
            models.Index(fields=["changed"], name="mailqueue_history_changed"),
        ]

    def __str__(self) -> str:
        return f"{self.address}: {self.get_status_display()}"

    @property
    def settled(self) -> datetime | None:
        """When it was accepted, given up or set aside; None: it is still queued."""
        return self.changed if self.status in FINAL else None
