"""Signals about queued messages, for a site's receivers. See "Signals" in the documentation.

``message_queued`` is sent in the process that calls ``send()``, after the message is stored, even if the transaction is
rolled back later. The others are sent by the drain, in its calling thread, before the queue is told: a drain that is
killed in between sends them again, and never misses one. An exception in a receiver is logged, and changes nothing.
A receiver delays the messages behind it, so it should do little.

The ``sender`` is the class of the backend. Receivers must accept ``**kwargs``. Each signal has these arguments:

``queue``       the name of the queue
``id``          the id of the message, twelve hexadecimal digits
``mailer``      the alias in MAILERS; "default" without MAILERS
``message``     the EmailMessage; None if it cannot be opened
``message_id``  its Message-ID; "" if it has none

All but ``message_queued`` also have:

``recipients``  a list of those for which the server accepted the message in this attempt
``refused``     a dict of those given up in this attempt, with the reason of each
``remaining``   a list of those that the next attempt is for
``reasons``     a dict of those in ``remaining``, with the reason of each
``attempts``    the number of attempts so far, including this one
``reply``       the server's last reply to the message, such as "250 2.0.0 Ok: queued as 4Xy"; "" if there was none
``error``       why the message was not delivered to all recipients; "" if it was
``age``         seconds since the message was queued
``seconds``     seconds that the attempt took
``relay``       the server or the backend that the message was passed to, such as "smtp.example.org:587"

Two more signals are for receivers that would be too slow if they were called for each message. ``message_events`` is
sent once for a group of messages, after their own signals, by the same process and thread:

``events``      a list of objects that have the arguments above as attributes, and ``status``: "queued", "sent",
                "partly" (accepted for some recipients), "requeued", "discarded" or "buried"

``drain_ended`` is sent at the end of each drain, after the last message is settled:

``queue``       the name of the queue
``report``      the figures of the drain, as in the backend's ``report``
"""

from django.dispatch import Signal

#: A message was stored.
message_queued = Signal()
#: A message was accepted for all recipients, except those in ``refused``.
message_sent = Signal()
#: A message was not accepted for all recipients, and is back in the queue.
message_requeued = Signal()
#: A message was given up, and recorded in the discard log.
message_discarded = Signal()
#: A message was moved to the dead queue, since it cannot be opened, or may crash the drain.
message_buried = Signal()
#: What became of a group of messages.
message_events = Signal()
#: A drain has ended.
drain_ended = Signal()
