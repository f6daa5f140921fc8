"""The pages of ``mailqueue_backend.dashboard``, with Django's test client."""
