"""The servers that the tests talk to: where they are, whether they answer, what to skip when they do not.

Addresses come from the environment. Where CI is set, a server that does not answer is a failure.
"""

from __future__ import annotations

import os
import socket
from typing import Any
from unittest import skipUnless

POSTGRESQL = os.environ.get("TEST_POSTGRESQL", "127.0.0.1:5432")
MARIADB = os.environ.get("TEST_MARIADB", "127.0.0.1:3306")
REDIS = os.environ.get("TEST_REDIS", "127.0.0.1:6379")

#: Own names on shared servers: nobody else's data is touched, and two runs do not meet.
PREFIX = os.environ.setdefault("TEST_PREFIX", f"mailqueue_test_{os.getpid()}")


def answers(address: str) -> bool:
    """Return whether something listens at this address; in CI, raise OSError if nothing does."""
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
    """Return Django's settings of the database servers that answer and whose driver is installed."""
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
    """Stand in for mysqlclient, which has no wheels; Django asks it for a version."""
    import pymysql

    pymysql.version_info = (2, 2, 7, "final", 0)
    pymysql.install_as_MySQLdb()


def needs(service: str, present: bool) -> Any:
    """Skip a test, visibly, where a server or its driver is missing."""
    return skipUnless(present, f"{service} does not answer, or its driver is not installed")


def redis_answers() -> bool:
    """Return whether a Redis server answers and its driver is installed."""
    return _importable("redis") and answers(REDIS)
