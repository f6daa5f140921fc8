"""Every promise of a mail queue (queues/base.py), stated once and run on each queue.

A queue is tested by a class that mixes QueueContract into a TestCase and opens the queue of a name in
``make_queue(name)``; where the test itself is not in a transaction, TakersContract is mixed in as well. A test of
something that the engine cannot do is skipped, as the abilities of the queue say.
"""

from .browsing import BrowseContract
from .concurrency import ConcurrencyContract
from .delays import DelayContract
from .exchanges import ExchangeContract
from .interrupts import InterruptContract
from .leases import LeaseContract
from .repeats import RepeatContract
from .settlements import SettleContract
from .surface import SurfaceContract
from .suspects import SuspectContract
from .taking import TakeContract


class QueueContract(
    SurfaceContract,
    ExchangeContract,
    LeaseContract,
    SettleContract,
    DelayContract,
    SuspectContract,
    RepeatContract,
    BrowseContract,
    TakeContract,
):
    """All promises to one consumer."""


class TakersContract(ConcurrencyContract, InterruptContract):
    """The promises to several consumers at once, and after an interrupt: each test needs commits of its own."""
