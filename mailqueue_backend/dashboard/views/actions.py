"""Actions on messages and queues: a page that asks, and the action itself. Both are POST requests."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic

from django.contrib import messages
from django.contrib.admin import AdminSite
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect

from ...delivery.words import count
from ...errors import MailQueueError
from ...inspection.acting import IS_GONE, Action, act, act_on_all
from ...inspection.messages import Message
from ...inspection.text import printable
from ...queues.base import MessageQueue, State
from ...queues.paused import REASON_LENGTH, pause, resume
from .. import tokens
from ..log import log_message, log_queue
from ..permissions import ACT, READ, VIEW, may, requires
from ..rows import row_of
from .messages import ACTIONS, actions_in
from .pages import address, page, site_queue

#: Seconds after which an action on all messages ends, before the web server ends it.
TIME_LIMIT = 20
#: Skipped messages that are named, at most.
SHOWN = 10


@requires(VIEW, ACT)
def act_on_messages(site: AdminSite, request: HttpRequest, name: str, state: State) -> HttpResponse:
    """Retry, discard or revive the selected messages, or all in a state; ask first."""
    queue, verb = site_queue(name), request.POST.get("action", "")
    if verb not in actions_in(state):
        raise Http404("There is no such action on these messages.")
    try:
        if "confirmed" not in request.POST:
            return _ask(site, request, queue, verb, state)
        (_act_on_all if "all" in request.POST else _act_on_selected)(request, queue, verb, state)
    except MailQueueError as error:
        messages.error(request, str(error))
    return HttpResponseRedirect(address(site, "messages", queue.name, state))


def _ask(site: AdminSite, request: HttpRequest, queue: MessageQueue, verb: str, state: State) -> HttpResponse:
    may_read, is_all = may(request, READ), "all" in request.POST
    rows = [] if is_all else [row_of(found, may_read) for found in _selected(request, queue) if found]
    number = getattr(queue.counts(), state) if is_all else len(rows)
    if not number:
        messages.warning(request, "No message is selected, or it has left the queue.")
        return HttpResponseRedirect(address(site, "messages", queue.name, state))
    title = f"{verb.capitalize()} {'all ' if is_all else ''}{count(number, f'{state} message')}?"
    context = {"state": state, "verb": verb, "rows": rows, "is_all": is_all}
    return page(site, request, "confirm", title, queue, **context)


def _selected(request: HttpRequest, queue: MessageQueue) -> Iterator[Message | None]:
    """Look up the selected messages, one after the other; None for one that is not found."""
    for token in request.POST.getlist("message"):
        yield tokens.message_of(queue, token, tokens.MESSAGE)


def _act_on_selected(request: HttpRequest, queue: MessageQueue, verb: str, state: State) -> None:
    action, done = ACTIONS[verb]
    found = list(_selected(request, queue))
    skipped = [IS_GONE] * found.count(None)
    number = 0
    for message, problem in act(action(), filter(None, found)):
        if problem:
            skipped.append(f"{message.id}: {problem}")
        else:
            number += 1
            log_message(request, message, f"{done.capitalize()}.")
    _report(request, number, done, skipped)


def _act_on_all(request: HttpRequest, queue: MessageQueue, verb: str, state: State) -> None:
    action, done = ACTIONS[verb]
    number, skipped, end = 0, [], monotonic() + TIME_LIMIT
    try:
        for message, problem in act_on_all(_in_state(action(), state), queue):
            if problem:
                skipped.append(f"{message.id}: {problem}")
            number += not problem
            if monotonic() > end:
                messages.warning(request, f"Stopped after {TIME_LIMIT} seconds. Repeat this for the other messages.")
                break
    finally:
        log_queue(request, queue.name, f"{done.capitalize()} {count(number, f'{state} message')}.")
    _report(request, number, done, skipped)


def _in_state(action: Action, state: State) -> Action:
    action.states = (state,)
    return action


def _report(request: HttpRequest, number: int, done: str, skipped: list[str]) -> None:
    if number or not skipped:
        messages.success(request, f"{count(number, 'message')} {done}.")
    for line in skipped[:SHOWN]:
        messages.warning(request, f"Skipped: {printable(line)}.")
    if len(skipped) > SHOWN:
        messages.warning(request, f"Skipped: {len(skipped) - SHOWN} more.")


@requires(VIEW, ACT)
def hold(site: AdminSite, request: HttpRequest, name: str, verb: str) -> HttpResponse:
    """Pause a queue, or resume it; ask first."""
    queue = site_queue(name)
    if "confirmed" not in request.POST:
        title = f"{verb.capitalize()} {queue.name}?"
        return page(site, request, "hold", title, queue, verb=verb, reason_length=REASON_LENGTH)
    reason = request.POST.get("reason", "")[:REASON_LENGTH]
    try:
        if verb == "pause":
            pause(queue, reason)
            done = f"Paused: {reason}" if reason else "Paused."
        else:
            done = "Resumed." if resume(queue) else "It was not paused."
        log_queue(request, queue.name, done)
        messages.success(request, f"{queue.name}: {done}")
    except MailQueueError as error:
        messages.error(request, str(error))
    return HttpResponseRedirect(address(site, "changelist"))
