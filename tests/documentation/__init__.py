"""The documentation: its links lead somewhere, and what it shows runs. CONTRIBUTING.md says how each fence is tested.

pages.py           the pages and their fences
test_pages.py      links, defaults, figures
test_python.py     code, settings, sessions of ``manage.py shell``
test_commands.py   commands and systemd units
test_printed.py    the lines that are quoted
"""
