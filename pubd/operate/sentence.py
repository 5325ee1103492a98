"""One sentence about the daemon: whether it is connected, what waits and since when, what a person should look at."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pubd.amqp.lane_cycle import LaneState
from pubd.amqp.lifecycle import LinkState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pubd.account import Account
    from pubd.amqp.broker import BrokerStatus
    from pubd.decision import Pause
    from pubd.outcome import Reason

#: Characters of a reason, which others wrote.
_LONGEST_REASON = 200
_AGES = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"))


def sentence(
    status: BrokerStatus,
    account: Account,
    *,
    oldest: float | None = None,
    brokers: int = 1,
    pauses: Sequence[Pause] = (),
    now: float = 0.0,
    draining: bool = False,
) -> str:
    """Such as ``connected to rabbit:5672; 12 ready, oldest 0.4 s``; one line, without passwords.

    ``oldest`` is the age (seconds) of the first message that is ready or in flight; ``brokers`` is how many are
    configured; ``now`` (epoch seconds) is for the ``pauses``; ``draining``: an operator has it accept nothing.
    """
    drains = ["DRAINING: nothing is accepted"] if draining else []
    return "; ".join(
        [_link(status, brokers), *drains, *_paused(pauses, now), *_exchanges(status), *_held(account, oldest)]
    )


def age(seconds: float) -> str:
    """``0.4 s``, ``12 s``, ``3 min``, ``2 h``, ``5 d``; a clock that was set back gives ``0.0 s``."""
    for unit, name in _AGES:
        if seconds >= 2 * unit:
            return f"{seconds // unit:.0f} {name}"
    return f"{seconds:.0f} s" if seconds >= 9.95 else f"{max(0.0, seconds):.1f} s"


def said(reason: Reason) -> str:
    """The reason in the words of who gave it, in one line of bounded length."""
    text = " ".join((reason.text if reason.code is None else f"{reason.code} {reason.text}").split())
    return text if len(text) <= _LONGEST_REASON else text[: _LONGEST_REASON - 3] + "..."


def _link(status: BrokerStatus, brokers: int) -> str:
    peer = _peer(status.url)
    match status.link:
        case LinkState.READY:
            return f"connected to {peer}"
        case LinkState.BLOCKED:
            why = " ".join((status.blocked or "").split())[:_LONGEST_REASON]
            return f"BLOCKED by broker {peer}{': ' if why else ''}{why}"
        case LinkState.CLOSING | LinkState.STOPPED:
            return "the connection to RabbitMQ is closed"
    if status.reason is None:
        return f"connecting to {peer}"
    why = said(status.reason)
    if brokers > 1:
        # The reason is that of the last one that was tried, which is not the one whose turn it is.
        return f"cannot connect: {why}; trying {peer}"
    return f"cannot connect: {why}" if peer in why else f"cannot connect to {peer}: {why}"


def _paused(pauses: Sequence[Pause], now: float) -> list[str]:
    """What nobody but a person can end. That of all says everything."""
    if not pauses:
        return []
    first = next((pause for pause in pauses if pause.exchange is None), pauses[0])
    what = "publishing" if first.exchange is None else f"exchange {first.exchange!r}"
    if first.exchange is not None and len(pauses) > 1:
        what += f" and {len(pauses) - 1} more"
    text = " ".join(first.text.split())[:_LONGEST_REASON]
    return [f"{what} PAUSED by {first.who} {age(now - first.at)} ago{': ' if text else ''}{text}"]


def _exchanges(status: BrokerStatus) -> list[str]:
    """What RabbitMQ refuses, which no connection cures."""
    refused = [lane for lane in status.lanes if lane.state is LaneState.REFUSED]
    if not refused:
        return []
    first = refused[0]
    why = f": {said(first.reason)}" if first.reason is not None else ""
    more = f" and {len(refused) - 1} more" if len(refused) > 1 else ""
    return [f"exchange {first.exchange!r}{more} REFUSED{why}"]


def _held(account: Account, oldest: float | None) -> list[str]:
    books = account.books
    ready = books.ready + books.in_flight
    parts = [f"{ready:,} ready" + (f", oldest {age(oldest)}" if ready and oldest is not None else "")] if ready else []
    if books.deferred:
        parts.append(f"{books.deferred:,} deferred")
    if books.parked:
        parts.append(f"{books.parked:,} PARKED")
    if books.difference:
        parts.append(f"the books do NOT balance by {books.difference:,}: please report this")
    return parts or ["nothing waits"]


def _peer(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2]
