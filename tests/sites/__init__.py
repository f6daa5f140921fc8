"""Small Django sites that queue and deliver real mail, each command in a process of its own: ``python -m tests.sites``.

settings.py    their settings, by kind: see KINDS in visit.py
sender.py      the site's own code: it sends mail in every way that Django has
visit.py       runs a site between real servers, and looks at what arrives and at what is said on stderr
"""
