"""The verdict over what was submitted, what was answered and what arrived, in Jepsen's words. Pure.

attempted     handed to pubd, whatever came of it
acknowledged  answered with a receipt
ok            acknowledged, and where it belongs: in the queue, or parked if it cannot be routed
lost          acknowledged and nowhere
unexpected    in a queue or parked, but never attempted, altered, in the wrong place, or accepted twice
in doubt      a crash came between the attempt and the answer
recovered     was in doubt, and is where it belongs
duplicated    copies beyond the first
"""

from __future__ import annotations

from binascii import crc32
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence

import attrs

from tests.crash.plan import UNROUTED, Plan


@attrs.frozen
class Content:
    """What must not change on the way; of the body the CRC-32 only, there are many."""

    exchange: str
    routing_key: str
    body: int


@attrs.frozen(kw_only=True)
class Arrived:
    """One message as a consumer got it from ``queue``, or as it is parked (``queue`` empty).

    ``life`` is the number of the worker's life in which it came into the queue.
    """

    queue: str
    life: int
    message_id: str
    number: int
    """-1 if it is none of ours."""
    content: Content

    @classmethod
    def of(cls, queue: str, life: int, message_id: str, exchange: str, routing_key: str, body: bytes) -> Arrived:
        head = body.partition(b" ")[0]
        return cls(
            queue=queue,
            life=life,
            message_id=message_id,
            number=int(head) if head.isdigit() else -1,
            content=Content(exchange, routing_key, crc32(body)),
        )


@attrs.define(eq=False)
class History:
    """What the supervisor has heard, life by life; it survives what it is about."""

    attempted: set[int] = attrs.Factory(set)
    acknowledged: dict[int, str] = attrs.Factory(dict)
    """With the id of the receipt."""
    ended: dict[int, str] = attrs.Factory(dict)
    """What settled receipts said: confirmed or parked."""
    doubtful: set[int] = attrs.Factory(set)
    """Every number that ever was in doubt."""
    kills: int = 0
    refused: list[str] = attrs.Factory(list)
    """Sentences of the worker about what was not to be."""

    def hear(self, line: str) -> None:
        """One whole line of the worker."""
        word, _, rest = line.partition(" ")
        if word == "try":
            self.attempted.update(map(int, rest.split()))
        elif word == "ack":
            for number, id in self._pairs(rest):
                if self.acknowledged.setdefault(number, id) != id:
                    self.refused.append(f"message {number} was given two receipts")
        elif word == "end":
            self.ended.update(self._pairs(rest))
        elif word == "no":
            self.refused.append(rest)

    def crash(self) -> list[int]:
        """The worker is dead: what is in doubt now, in order."""
        self.kills += 1
        doubtful = self.attempted.difference(self.acknowledged)
        self.doubtful |= doubtful
        return sorted(doubtful)

    @staticmethod
    def _pairs(text: str) -> Iterator[tuple[int, str]]:
        for pair in text.split():
            number, _, value = pair.partition("=")
            yield int(number), value


@attrs.frozen(kw_only=True)
class Books:
    """What `pubd verify` said of the spool after it all."""

    accepted: int
    confirmed: int
    expired: int
    discarded: int
    held: int
    parked: int


@attrs.frozen(kw_only=True)
class Verdict:
    """Figures, and in ``problems`` a sentence for everything that must not be; none means that pubd kept its word."""

    attempted: int
    acknowledged: int
    ok: int
    lost: int
    unexpected: int
    in_doubt: int
    recovered: int
    duplicated: int
    worst: int
    """Duplicates that the worst crash made on one lane; at most the window."""
    kills: int
    problems: tuple[str, ...]


class _Submitted:
    """Number -> what was submitted under it: its content and its ordering key. Made once."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._known: dict[int, tuple[Content, str | None]] = {}

    def __call__(self, number: int) -> tuple[Content, str | None]:
        known = self._known.get(number)
        if known is None:
            message = self._plan.message(number)
            content = Content(message.exchange, message.routing_key, crc32(message.body))
            known = self._known[number] = content, message.ordering_key
        return known


def judge(plan: Plan, history: History, arrived: Sequence[Arrived], parked: Sequence[Arrived], books: Books) -> Verdict:
    """``arrived`` in order of each queue."""
    submitted = _Submitted(plan)
    found: dict[int, str] = {}
    unexpected = list(_foreign(history, [*arrived, *parked], submitted, found))
    lost = sorted(set(history.acknowledged).difference(found))
    crossed = [
        f"message {n}: {how}"
        for n, how in history.ended.items()
        if (how == "parked") != (submitted(n)[0].routing_key == UNROUTED)
    ]
    blame, causeless = _copies(arrived)
    excess = [
        f"{count} in {queue} by the end of life {life}" for (queue, life), count in blame.items() if count > plan.window
    ]
    return Verdict(
        attempted=len(history.attempted),
        acknowledged=len(history.acknowledged),
        ok=len(history.acknowledged) - len(lost),
        lost=len(lost),
        unexpected=len(unexpected),
        in_doubt=len(history.doubtful),
        recovered=len(history.doubtful.intersection(found)),
        duplicated=blame.total() + len(causeless),
        worst=max(blame.values(), default=0),
        kills=history.kills,
        problems=(
            *_some(history.refused, "complaints of the worker"),
            *_some(unexpected, "unexpected"),
            *_some([f"message {n}" for n in lost], "acknowledged and lost"),
            *_some(crossed, "not settled as they should be"),
            *_some(causeless, "duplicates without a crash"),
            *_some(excess, f"crashes with more duplicates on a lane than its window of {plan.window}"),
            *_some(list(_disorder(plan, arrived, submitted)), "out of order"),
            *_books(books, arrived, parked),
        ),
    )


def _foreign(
    history: History, everything: Iterable[Arrived], submitted: _Submitted, found: dict[int, str]
) -> Iterator[str]:
    """What is not what was submitted; what is goes into ``found``, with its message_id."""
    for each in everything:
        number, where = each.number, each.queue or "the spool, parked"
        if number not in history.attempted:
            yield f"message {number} in {where} was never attempted"
            continue
        wanted = submitted(number)[0]
        if each.content != wanted:
            yield f"message {number} was altered"
        elif each.queue != ("" if wanted.routing_key == UNROUTED else wanted.exchange):
            yield f"message {number} is in {where}"
        elif found.setdefault(number, each.message_id) != each.message_id:
            yield f"message {number} was accepted twice, as {found[number]} and {each.message_id}"
        elif history.acknowledged.get(number, each.message_id) != each.message_id:
            yield f"message {number} was answered as {history.acknowledged[number]} and is {each.message_id}"


def _copies(arrived: Iterable[Arrived]) -> tuple[Counter[tuple[str, int]], list[str]]:
    """(queue, life) -> duplicates made by the end of that life; and those that no end of a life explains.

    A duplicate is there because the life that published the copy before it ended without a settlement.
    """
    last: dict[tuple[str, str], int] = {}
    blame: Counter[tuple[str, int]] = Counter()
    causeless: list[str] = []
    for each in arrived:
        before = last.get((each.queue, each.message_id))
        if before == each.life:
            causeless.append(f"message {each.number} in life {each.life}")
        elif before is not None:
            blame[each.queue, before] += 1
        last[each.queue, each.message_id] = each.life
    return blame, causeless


def _disorder(plan: Plan, arrived: Iterable[Arrived], submitted: _Submitted) -> Iterator[str]:
    """First copies that came after a later message of the same queue, ordering key (or of none) and session."""
    highest: dict[tuple[str, str | None, int], int] = defaultdict(lambda: -1)
    seen: set[tuple[str, int]] = set()
    for each in arrived:
        number = each.number
        if number < 0 or (each.queue, number) in seen:
            continue
        seen.add((each.queue, number))
        ordering_key = submitted(number)[1]
        key = each.queue, ordering_key, plan.session(number, ordering_key)
        if number < highest[key]:
            yield f"message {number} after {highest[key]} in {key[0]}, {key[1] or 'without an ordering key'}"
        highest[key] = max(number, highest[key])


def _books(books: Books, arrived: Iterable[Arrived], parked: Sequence[Arrived]) -> Iterator[str]:
    delivered = len({each.message_id for each in arrived})
    for name, says, is_ in (
        ("confirmed", books.confirmed, delivered),
        ("parked", books.parked, len(parked)),
        ("held", books.held, len(parked)),
        ("expired and discarded", books.expired + books.discarded, 0),
        ("accepted", books.accepted, delivered + len(parked)),
    ):
        if says != is_:
            yield f"the books say {says} {name}, there are {is_}"


def _some(sentences: Sequence[str], what: str) -> list[str]:
    if not sentences:
        return []
    more = f" and {len(sentences) - 5} more" if len(sentences) > 5 else ""
    return [f"{len(sentences)} {what}: {'; '.join(sentences[:5])}{more}"]
