"""One run: drain each queue of the site once, and add up the figures."""

from __future__ import annotations

from time import monotonic
from typing import Any

from ..delivery.limits import DrainOptions
from ..delivery.report import Report
from ..delivery.words import count
from ..errors import MailQueueError
from .mailers import backends_to_drain, drain_all

#: What a run counts, for each queue.
FIGURES = ("sent", "discarded", "length", "requeued", "buried", "recipients_given_up")
#: What may happen to a message, from harmless to worst, and the figures that count it.
LOSSES = {
    "requeued": ("requeued",),
    "discarded": ("discarded", "recipients_given_up"),
    "dead": ("buried",),
}
#: The noun and the verb of the figures that describe() knows.
_WORDS = {
    "requeued": ("message", "requeued"),
    "discarded": ("message", "discarded"),
    "recipients_given_up": ("recipient", "given up"),
    "buried": ("message", "set aside"),
}


class Run:
    """The queues that one run drains, and its figures so far."""

    def __init__(self) -> None:
        #: One backend for each queue.
        self.backends: list[Any] = []
        #: What send_queued_messages() returned for each queue; fewer than backends if the run has failed.
        self.results: list[tuple[int, int, int]] = []
        #: Why the run ended early; None: it did not.
        self.failure: MailQueueError | None = None
        self.seconds = 0.0

    def drain(self, using: str | None, options: DrainOptions, *expire: float) -> None:
        """Drain all queues, or only the one of the mailer ``using``; record an error of this package in ``failure``."""
        began = monotonic()
        try:
            self.backends = backends_to_drain(using)
            for result in drain_all(self.backends, options, *expire):  # not list(): keep what precedes an error
                self.results.append(result)
        except MailQueueError as error:
            self.failure = error
            self.results += [backend.report.result for backend in self.backends[len(self.results) :][:1]]
        self.seconds = monotonic() - began

    @property
    def reports(self) -> list[Report]:
        """The report of each queue."""
        return [backend.report for backend in self.backends]

    @property
    def reasons_to_wait(self) -> list[str]:
        """Why messages wait, although it was their turn; empty if none does."""
        return list(dict.fromkeys(reason for report in self.reports for reason in report.reasons_to_wait))

    @property
    def went_well(self) -> bool:
        """Whether every queue was drained, and no message has to wait for a server, a login or a sender."""
        is_held_up = self.reasons_to_wait or any(report.paused is not None for report in self.reports)
        return bool(self.backends) and self.failure is None and not is_held_up

    def total(self, figure: str) -> int:
        """Return a figure over all queues."""
        return sum(figures[figure] for figures in self._by_queue())

    def figures(self) -> dict[str, Any]:
        """Return all figures, in total and for each queue, as JSON can store them."""
        by_queue = self._by_queue()
        totals = {figure: sum(each[figure] for each in by_queue) for figure in FIGURES}
        queues = [
            {
                "queue": backend.queue_name,
                **figures,
                "paused": backend.report.paused,
                "reasons_to_wait": backend.report.reasons_to_wait,
            }
            for backend, figures in zip(self.backends, by_queue, strict=True)
        ]
        failure = None if self.failure is None else str(self.failure)
        return {**totals, "seconds": round(self.seconds, 3), "failure": failure, "queues": queues}

    def describe_losses(self, least: str) -> str:
        """Return what happened to messages that is at least as bad as this key of LOSSES; "" if nothing did."""
        kinds = list(LOSSES)
        figures = [figure for kind in kinds[kinds.index(least) :] for figure in LOSSES[kind]]
        texts = [text for figure in figures if (text := self.describe(figure))]
        if least == "requeued" and self.reasons_to_wait:
            texts.append(f"messages wait ({'; '.join(self.reasons_to_wait)})")
        return ", ".join(texts)

    def describe(self, figure: str) -> str:
        """Return a figure in words, such as "2 messages requeued"; "" if it is 0."""
        (noun, what), number = _WORDS[figure], self.total(figure)
        return f"{count(number, noun)} {what}" if number else ""

    def _by_queue(self) -> list[dict[str, int]]:
        missing = [(0, 0, 0)] * (len(self.backends) - len(self.results))
        pairs = zip(self.reports, [*self.results, *missing], strict=True)
        return [_figures(report, result) for report, result in pairs]


def _figures(report: Report, result: tuple[int, int, int]) -> dict[str, int]:
    """Return the figures of one queue. An override of send_queued_messages() may count in its own way."""
    return dict(zip(FIGURES, (*result, report.requeued, report.buried, report.recipients_given_up), strict=True))
