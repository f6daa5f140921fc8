"""Delivering what is queued.

drain.py       one pass over a queue, by as many workers as its backlog is worth
worker.py      one thread's work: take a message, have it delivered, settle it
routes.py      the backend that delivers a message
settling.py    what the queue is told
quota.py       what a drain may still take: limits, rate, the request to stop
retrying.py    when something is tried again
stopping.py    that request, and the signals that make it
deadlines.py   the wall-clock time that a message has
breaker.py     a server that cannot be reached is asked once
outcomes.py    what can become of a message, and the report
"""
