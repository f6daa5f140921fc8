"""SMTP as a drain needs it: what is added to smtplib, and nothing of queues.

connection.py  the connection: who accepted a message, who refused it, and nothing that is out of step
pipelining.py  a message's commands in one write
replies.py     the server's replies, read line by line
sockets.py     sockets that a deadline can shut down
rendering.py   big attachments, rendered in little memory
"""
