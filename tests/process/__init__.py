"""Sites, drains and senders in child processes, and the package beside third-party code."""
