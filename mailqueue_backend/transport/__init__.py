"""Our additions to smtplib; nothing here knows of queues.

connection.py  an SMTP connection that records which recipients were accepted or refused
pipelining.py  all commands of a message in one write
replies.py     a strict reader of the server's replies
sockets.py     sockets that a deadline can shut down
rendering.py   big attachments, rendered with little memory
"""
