"""Find out which commands and keys of the script a Redis user may not use, without running any command."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .client import Server, driver

#: The commands on each type of key, with the number of arguments that follow the key. LPOS is optional.
LIST = {"RPUSH": 1, "LPUSH": 1, "LINDEX": 1, "LRANGE": 2, "LTRIM": 2, "LREM": 2, "LLEN": 0}
HASH = {"HSET": 2, "HGET": 1, "HDEL": 1, "HEXISTS": 1}
ZSET = {"ZADD": 2, "ZREM": 1, "ZSCORE": 1, "ZRANK": 1, "ZCOUNT": 2, "ZCARD": 0, "ZRANGE": 2, "ZRANGEBYSCORE": 2}
#: For each key, in the order of Script.keys.
COMMANDS = (LIST, HASH, ZSET, HASH, ZSET, LIST)


def denied(server: Server, keys: list[str]) -> list[str]:
    """Return the commands and keys that the user may not use; ["MULTI"] if this cannot be found out.

    Inside a transaction (MULTI), Redis checks the permissions for a command at once, but runs it only at the end. The
    connection is closed before that, which discards the transaction. Raises the driver's errors.
    """
    pool = server.client.connection_pool
    connection: Any = pool.connection_class(**pool.connection_kwargs)
    commands = [*_commands(keys)]
    try:
        connection.send_command("MULTI")
        if _refusal(connection, ["MULTI"]):
            return ["MULTI"]
        # In one call, which cannot reconnect in between: outside the transaction, the commands would run.
        connection.send_packed_command(connection.pack_commands(commands), check_health=False)
        refusals = [_refusal(connection, command) for command in commands]
    finally:
        connection.disconnect()
    return [*dict.fromkeys(filter(None, refusals))]


def _commands(keys: list[str]) -> Iterator[list[str]]:
    yield from (["TIME"], ["EVAL", "", "0"], ["EVALSHA", "0" * 40, "0"])
    for key, commands in zip(keys, COMMANDS, strict=True):
        for name, count in commands.items():
            yield [name, key, *["0"] * count]


def _refusal(connection: Any, command: list[str]) -> str | None:
    """Read an answer. Return the command or the key that is denied, or None; raise other errors."""
    try:
        connection.read_response()
    except driver().exceptions.NoPermissionError as error:
        return command[1] if " key" in str(error) else command[0]
    return None
