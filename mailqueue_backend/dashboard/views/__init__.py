"""The pages: the queues, the messages of one, the parts of a message, and the actions."""
