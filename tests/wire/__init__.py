"""Mail sent over SMTP, or by another backend, to a server in this process."""
