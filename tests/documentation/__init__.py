"""The documentation: what it shows is executed, and what it quotes is printed."""
