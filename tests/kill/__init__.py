"""The test that nothing is lost when a process dies.

settings.py    the settings of a child process, which its parent passes on
children.py    starting child processes: senders and drains
ledger.py      the fate of each message, and the faults of a run
harness.py     one run: queue messages, drain them in processes that are killed, draw up the ledger
__main__.py    the same from the command line: ``python -m tests.kill --help``
"""
