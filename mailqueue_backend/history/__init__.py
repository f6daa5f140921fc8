"""What became of each recipient of each message, for some days, on any queue.

This is an optional app: add ``"mailqueue_backend.history"`` to INSTALLED_APPS and run ``manage.py migrate``. See
"History" in the documentation.
"""
