"""What needs no server, in this process or elsewhere."""
