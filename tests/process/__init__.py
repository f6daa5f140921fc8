"""Sites, drains and senders in processes of their own, and other people's code beside ours."""
