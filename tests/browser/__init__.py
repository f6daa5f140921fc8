"""The pages of ``mailqueue_backend.dashboard`` in a real browser: ``tox run -e browser``."""
