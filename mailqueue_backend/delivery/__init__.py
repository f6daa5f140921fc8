"""The drain: deliver queued messages. It knows nothing of queue engines, and only the reply codes of SMTP.

drain.py       one pass over a queue, by one or more workers
feed.py        hands messages to the workers, and settles the finished ones
in_flight.py   every reservation, from the queue's hand-out to its settlement
settling.py    one message in flight, and its settlement
worker.py      opens a message, delivers it, and decides its disposition
requeueing.py  how a message that failed, or was interrupted, goes back to the queue
events.py      what became of a message: a log line and a signal
session.py     a worker's connection to a mailer
mailer.py      the state of a mailer during a drain, shared by the workers
addressing.py  recipients, as a message and as a server spell them
policy.py      the outcome of a delivery attempt
limits.py      limits, rate and stop requests
deadlines.py   wall-clock deadlines
clock.py       messages that are due in the future, although nothing has delayed them
untold.py      what the queue could not be told
report.py      the figures of a drain
"""
