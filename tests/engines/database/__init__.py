"""The promises of the database queue beyond the contract, run on each database."""

from tests.engines.contract import QueueContract, TakersContract

from .errors import ErrorContract
from .interrupts import TransactionInterruptContract
from .races import RaceContract
from .statements import StatementContract
from .suspects import SuspectSearchContract
from .threads import ThreadContract
from .transactions import TransactionContract


class DatabaseContract(
    TransactionContract,
    StatementContract,
    SuspectSearchContract,
    RaceContract,
    TransactionInterruptContract,
    ThreadContract,
    ErrorContract,
    QueueContract,
    TakersContract,
):
    """The whole contract with real commits, and the promises beyond it."""
