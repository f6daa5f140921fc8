"""Tests that need no server, neither in this process nor elsewhere."""
