"""Look at the queues of a site, and act on single messages, while drains run.

``messages`` opens what a queue lists, ``listing`` searches it, ``acting`` retries, discards and revives, ``figures``
summarises it for ``alarm`` and ``metrics``, ``export`` renders, and ``text`` words all of that for a terminal.
"""
