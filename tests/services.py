"""The servers that the tests use: their addresses, whether they answer, and the decorator that skips if they do not.

Addresses come from the environment. If CI is set, a server that does not answer is an error.
"""

from __future__ import annotations

import os
import socket
from typing import Any
from unittest import skipUnless

POSTGRESQL = os.environ.get("TEST_POSTGRESQL", "127.0.0.1:5432")
MARIADB = os.environ.get("TEST_MARIADB", "127.0.0.1:3306")
REDIS = os.environ.get("TEST_REDIS", "127.0.0.1:6379")

#: Prefix of all names on shared servers, so that runs do not touch each other's data.
PREFIX = os.environ.setdefault("TEST_PREFIX", f"mailqueue_test_{os.getpid()}")


def answers(address: str) -> bool:
    """Return whether a server listens at this address; under CI, raise OSError if none does."""
    host, port = address.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        if os.environ.get("CI"):
            raise
        return False
    return True


def _importable(module: str) -> bool:
    try:
        __import__(module)
    except ImportError:
        return False
    return True


def databases() -> dict[str, Any]:
    """Return DATABASES entries for the servers that answer and whose drivers are installed."""
    found: dict[str, Any] = {}
    if _importable("psycopg") and answers(POSTGRESQL):
        found["postgresql"] = _database("postgresql", POSTGRESQL, os.environ.get("TEST_POSTGRESQL_USER", "postgres"))
    if _importable("pymysql") and answers(MARIADB):
        _use_pymysql()
        found["mariadb"] = _database("mysql", MARIADB, os.environ.get("TEST_MARIADB_USER", "root"))
    return found


def _database(engine: str, address: str, user: str) -> dict[str, Any]:
    host, port = address.rsplit(":", 1)
    return {
        "ENGINE": f"django.db.backends.{engine}",
        "HOST": host,
        "PORT": port,
        "USER": user,
        "PASSWORD": os.environ.get(f"TEST_{engine.upper()}_PASSWORD", ""),
        "NAME": os.environ.get("TEST_DATABASE_NAME", "postgres" if engine == "postgresql" else ""),
        "TEST": {"NAME": PREFIX, "DEPENDENCIES": []},
    }


def _use_pymysql() -> None:
    """Install PyMySQL in place of mysqlclient, which has no wheels, with a version that Django accepts."""
    import pymysql

    pymysql.version_info = (2, 2, 7, "final", 0)
    pymysql.install_as_MySQLdb()


def needs(service: str, present: bool) -> Any:
    """Return a decorator that skips a test, with the reason, unless the service is present."""
    return skipUnless(present, f"{service} does not answer, or its driver is not installed")


def redis_answers() -> bool:
    """Return whether a Redis server answers and its driver is installed."""
    return _importable("redis") and answers(REDIS)
