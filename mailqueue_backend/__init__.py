"""Django's SMTP e-mail backend with a queue in front.

``send_mail()`` stores the message; ``manage.py process_mail_queue`` delivers it. See README.md.
"""

__version__ = "1.0.0.dev0"
