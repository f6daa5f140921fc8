"""Receipts of the Redis queue: what holds a message, and what an answer about it means."""

from __future__ import annotations

from secrets import token_hex
from time import monotonic
from typing import NamedTuple, cast

from .base import Reservation


class Receipt(NamedTuple):
    """What holds a message."""

    #: Its name in Redis. We choose it, so that asking again for a lost answer gets the same answer.
    id: str
    #: The lease does not end before, on time.monotonic().
    until: float


def new_receipt(lease: float) -> Receipt:
    """Make one for a message that is asked for now."""
    return Receipt(token_hex(16), monotonic() + lease)


def receipt_of(reservation: Reservation) -> Receipt:
    """Give what holds this message."""
    return cast(Receipt, reservation.receipt)


def as_reservation(receipt: Receipt, taken: tuple[bytes, int] | None) -> Reservation | None:
    """Read the script's answer: payload and deliveries, or nothing."""
    return None if taken is None else Reservation(taken[0], receipt, taken[1])


def is_settled(held: Receipt, found: int, again: bool) -> bool:
    """Tell whether we have settled it: asked again, it may be gone because the first time worked.

    Nobody else can have taken it before its lease ended.
    """
    return bool(found) or (again and monotonic() < held.until)


def microseconds(seconds: float) -> int:
    """Give the unit of the script."""
    return round(seconds * 1_000_000)
