"""What the machine must have for a measurement; where it is missing, the measurement is left out."""

from __future__ import annotations

import os
import shutil
import socket

REDIS = os.environ.get("BENCHMARK_REDIS", "127.0.0.1:6379")


class Missing(Exception):
    """Says what is not there."""


def redis() -> str:
    """Give the address of Redis. Raises Missing."""
    host, port = REDIS.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        raise Missing(f"no Redis answers at {REDIS}; the environment variable BENCHMARK_REDIS names another") from None
    return REDIS


def program(name: str, package: str) -> str:
    """Give the path of a program. Raises Missing."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if path is None:
        raise Missing(f"no {name}; Debian has it in the package {package}")
    return path
