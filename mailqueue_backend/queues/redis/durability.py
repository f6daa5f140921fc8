"""Whether a Redis server, as it is configured, keeps the mail that it holds."""

from __future__ import annotations

from typing import Any

from .client import driver


def durability_warnings(client: Any, address: str) -> list[str]:
    """Return a sentence for each way in which the server may lose mail. A denied or failed question says nothing."""
    found = []
    if _info(client, "persistence").get("aof_enabled") == 0 and _setting(client, "save") == "":
        found.append(f"Redis at {address} loses all mail when it restarts: set appendonly yes.")
    policy = str(_info(client, "memory").get("maxmemory_policy", ""))
    if policy.startswith("allkeys"):
        found.append(
            f"Redis at {address} deletes mail when its memory is full (maxmemory-policy {policy}): set noeviction."
        )
    return found


def _info(client: Any, section: str) -> dict[str, Any]:
    try:
        return dict(client.info(section))
    except driver().RedisError:
        return {}


def _setting(client: Any, name: str) -> str | None:
    """Return a setting of the server; None if the user may not ask, as with most hosted servers."""
    try:
        value = dict(client.config_get(name)).get(name)
    except driver().RedisError:
        return None
    return value.decode() if isinstance(value, bytes) else value
