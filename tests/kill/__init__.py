"""The proof that nothing is lost when a process dies.

settings.py    the settings of a child process, which its parent chooses
children.py    starting child processes: senders and drains
ledger.py      what became of the messages, and what must not have
harness.py     one run: queue messages, drain them in processes that are killed, draw up the ledger
__main__.py    the same from the command line: ``python -m tests.kill --help``
"""
