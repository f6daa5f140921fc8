"""An optional app: the queues of any engine in Django's admin.

It looks at the queues and acts on them through ``inspection``, and has no table of its own. ``admin`` has the addresses
of the pages, ``views`` makes them, ``content`` takes a mail apart, ``permissions`` says who may see what.
"""
