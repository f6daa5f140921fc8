"""A model without a table, for the admin's index, its log and the permissions."""

from __future__ import annotations

from django.db import models


class Queue(models.Model):
    """A queue of the site."""

    name = models.CharField(max_length=200, primary_key=True)

    class Meta:
        managed = False
        default_permissions = ()
        permissions = [
            ("view_queue", "Can see the queues, without addresses, subjects and texts"),
            ("read_messages", "Can read queued messages, such as password resets"),
            ("act_on_messages", "Can retry, discard and revive messages, and pause queues"),
        ]

    def __str__(self) -> str:
        return self.name
