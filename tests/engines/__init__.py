"""The queues, each on its real engine."""
