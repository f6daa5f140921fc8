"""Small Django sites that queue and deliver real mail, each command in a separate process: ``python -m tests.sites``.

settings.py    the settings of each kind of site; see KINDS in visit.py
sender.py      the site's code, which sends mail in every way that Django offers
visit.py       runs a site with real mail servers; collects what arrives and what is written to stderr
"""
