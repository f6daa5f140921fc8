"""Servers and programs that measurements need. A measurement is skipped if one is missing."""

from __future__ import annotations

import os
import shutil
import socket

#: Addresses of the servers.
REDIS = os.environ.get("BENCHMARK_REDIS", "127.0.0.1:6379")
POSTGRESQL = os.environ.get("BENCHMARK_POSTGRESQL", "127.0.0.1:5432")


class Missing(Exception):
    """A server or program is not available; the message says which."""


def redis() -> str:
    """Return the address of Redis. Raise Missing if it does not answer."""
    _require_server("Redis", REDIS, "BENCHMARK_REDIS")
    return REDIS


def postgresql() -> dict[str, str]:
    """Return Django's settings for PostgreSQL. Raise Missing if it does not answer."""
    _require_server("PostgreSQL", POSTGRESQL, "BENCHMARK_POSTGRESQL")
    host, port = POSTGRESQL.rsplit(":", 1)
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "postgres",
        "HOST": host,
        "PORT": port,
        "USER": os.environ.get("BENCHMARK_POSTGRESQL_USER", "postgres"),
        "PASSWORD": os.environ.get("BENCHMARK_POSTGRESQL_PASSWORD", ""),
    }


def program(name: str, package: str) -> str:
    """Return the path of a program. Raise Missing if it is not installed."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if path is None:
        raise Missing(f"{name} is not installed; Debian has it in the package {package}")
    return path


def _require_server(name: str, address: str, variable: str) -> None:
    host, port = address.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        raise Missing(f"{name} does not answer at {address}; set {variable} to another address") from None
