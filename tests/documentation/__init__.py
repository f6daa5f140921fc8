"""The documentation: its links lead somewhere, and what it shows runs. CONTRIBUTING.md says how each fence is tested.

pages.py           the pages and their fences
test_pages.py      links, defaults, figures
test_python.py     code, settings, sessions of ``manage.py shell``
test_commands.py   commands, systemd units, Kubernetes objects and Procfiles
test_logging.py    the LOGGING that writes the delivery log
test_printed.py    the lines that are quoted
"""
