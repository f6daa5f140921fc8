"""Every promise of a mail queue (queues/base.py), stated once and run on each queue.

To test a queue, mix QueueContract into a TestCase and define ``make_queue(name)``. Mix in TakersContract as well,
unless the test case runs in a transaction. A test is skipped when the queue lacks the ability that it tests.
"""

from .browsing import BrowseContract
from .concurrency import ConcurrencyContract
from .delays import DelayContract
from .exchanges import ExchangeContract
from .interrupts import InterruptContract
from .leases import LeaseContract
from .pausing import PauseContract
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
    PauseContract,
):
    """The promises to a single consumer."""


class TakersContract(ConcurrencyContract, InterruptContract):
    """The promises to concurrent consumers and after an interrupt; these tests need real commits."""
