"""The promises of the feed, run on each queue: what a drain leaves behind, in which order, and how much it reserves."""

from .holding import HoldingContract
from .losses import LostConnectionContract, UnavailableContract
from .order import OrderContract
from .pausing import PauseContract
from .suspects import SuspectContract
from .unstorable import UnstorableContract


class FeedContract(
    OrderContract,
    UnavailableContract,
    UnstorableContract,
    HoldingContract,
    SuspectContract,
    LostConnectionContract,
    PauseContract,
):
    """All promises of the feed."""
