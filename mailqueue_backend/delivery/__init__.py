"""The drain: delivering what is queued. It knows no engine, and of SMTP the reply codes only.

drain.py       one pass over a queue, by as many workers as its backlog is worth
feed.py        hands messages to the workers, and settles what they are done with
in_flight.py   every reservation, from the queue's hand-out to its settlement
settling.py    one message in flight, and what the queue is told of it
worker.py      open a message, have it delivered, say what becomes of it
session.py     a worker's connection to a mailer
mailer.py      what a drain knows of a mailer, shared by its workers
addressing.py  recipients: a message's names for them, and what a server sees
policy.py      what becomes of a message after a try
limits.py      limits, rate, and the request to stop
deadlines.py   the wall-clock time that a message has
report.py      the figures
"""
