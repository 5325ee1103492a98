"""Handing in a batch until the daemon has answered for each message, or the time is up."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import attrs

from pubd.cli.client import Answer, AnswerLost, Client, Unreachable
from pubd.cli.failure import REFUSED, TRY_LATER, UNREACHABLE
from pubd.wording import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: Answers after which the same is tried again: those of pubd and of proxies before it.
LATER_STATUS = frozenset((408, 429, 500, 502, 503, 504, 507))
LATER_TYPES = frozenset(
    ("busy", "draining", "internal", "quota", "request-timeout", "spool-failed", "spool-full", "stopping")
)
#: The message was stored, and something else than a confirm became of it.
SETTLED_TYPES = frozenset(("discarded", "expired", "parked", "returned"))
#: Seconds that the daemon waits for confirms at a time, if it is not asked for less.
WAIT = 30.0
#: How much longer than that an answer may take, in seconds.
GRACE = 5.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0


@attrs.frozen(kw_only=True)
class Result:
    """The daemon's answer for one message, as it came, and its parts."""

    said: dict[str, Any]

    @property
    def id(self) -> str | None:
        """pubd's id, where the message was stored."""
        found = self.said.get("id") or self.error.get("id")
        return found if isinstance(found, str) else None

    @property
    def state(self) -> str | None:
        """``stored`` or ``confirmed``; None when there is an error."""
        found = self.said.get("state")
        return found if isinstance(found, str) and not self.error else None

    @property
    def error(self) -> dict[str, Any]:
        """``type``, ``detail`` and, where there is one, ``field``; empty if all is well."""
        found = self.said.get("error")
        return found if isinstance(found, dict) else {}

    @property
    def type(self) -> str:
        """The error's."""
        return str(self.error.get("type", ""))

    @property
    def sentence(self) -> str:
        """The error in words: the field, what is wrong with it, and the fix."""
        detail, field = str(self.error.get("detail", self.type)), self.error.get("field")
        return plain(f"{field}: {detail}" if isinstance(field, str) else detail)

    @property
    def retry_after(self) -> float:
        """Seconds, for an error that goes away; 0 where nothing is said."""
        found = self.error.get("retry_after")
        return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else 0.0


@attrs.frozen(kw_only=True)
class GivenUp:
    """Why there are no more answers: one sentence and an exit code. ``unknown``: some may be stored all the same."""

    sentence: str
    code: int
    unknown: bool = False


@attrs.frozen(kw_only=True)
class Answered:
    """One result for each message, in order; None for those without an answer, and then why."""

    results: tuple[Result | None, ...]
    given_up: GivenUp | None = None


@attrs.frozen(kw_only=True)
class _Pause:
    """Try again, not before so many seconds have passed if that is said. ``stored``: only the confirms are missing."""

    why: GivenUp
    after: float = 0.0
    stored: bool = False


@attrs.frozen(kw_only=True)
class _Split:
    """The request was too large."""

    detail: str


class Submission:
    """Submits batches over one connection, one after the other, so that the order stays.

    ``timeout`` (seconds) is for each batch: connecting, waiting and trying again included. ``wait``: until RabbitMQ
    has confirmed. Every message must have an idempotency key, or trying again could publish it twice.
    """

    def __init__(
        self,
        client: Client,
        *,
        timeout: float,
        wait: bool,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._client = client
        self.timeout = timeout
        self.wait = wait
        self._clock = clock
        self._sleep = sleep
        self._jitter = jitter
        self._met = False
        """The daemon has answered before, and is worth waiting for when it is gone."""
        self._server_decides = False
        """It waits for less than we would (``max_wait``), and refuses to be asked for more."""

    def submit(
        self,
        lines: Sequence[bytes],
        meanwhile: Callable[[], None] = lambda: None,
        note: Callable[[str], None] = lambda _: None,
    ) -> Answered:
        """Each line is a JSON object. ``meanwhile`` is called once, while the daemon works.

        ``note`` is told, in one sentence, why it takes longer.
        """
        results: list[Result | None] = [None] * len(lines)
        if not lines:
            return Answered(results=())
        deadline = self._clock() + self.timeout
        given_up = self._some(lines, list(range(len(lines))), results, deadline, _Once(meanwhile), note)
        return Answered(results=tuple(results), given_up=given_up)

    def _some(
        self,
        lines: Sequence[bytes],
        open_: list[int],
        results: list[Result | None],
        deadline: float,
        meanwhile: _Once,
        note: Callable[[str], None],
    ) -> GivenUp | None:
        """Fill in the results of the lines that are ``open_``; why not, if some stay without."""
        attempt = 0
        unknown = False
        while True:
            found = self._ask([lines[at] for at in open_], deadline, meanwhile)
            if isinstance(found, GivenUp):
                return attrs.evolve(found, unknown=found.unknown or unknown)
            if isinstance(found, _Split):
                if len(open_) == 1:
                    error = {"type": "too-large", "detail": found.detail}
                    results[open_[0]] = Result(said={"error": error})
                    return None
                half = len(open_) // 2
                for part in (open_[:half], open_[half:]):
                    given_up = self._some(lines, part, results, deadline, meanwhile, note)
                    if given_up is not None:
                        return given_up
                return None
            later: _Pause | None
            if isinstance(found, _Pause):
                later = found
            else:
                open_, later = self._sort(open_, found, results)
                if later is None:
                    return None
            unknown = unknown or later.why.unknown
            pause = max(min(_FIRST_PAUSE * 2**attempt, _LONGEST_PAUSE) * (0.5 + self._jitter() / 2), later.after)
            attempt += 1
            if self._clock() + pause >= deadline:
                return self._time_is_up(open_, results, later.why, unknown)
            if not later.stored:
                note(later.why.sentence)
            self._sleep(pause)

    def _sort(
        self, open_: list[int], found: list[Result], results: list[Result | None]
    ) -> tuple[list[int], _Pause | None]:
        """Take what is final; those that are to be tried again, and why."""
        again: list[int] = []
        why: str | None = None
        after: float = 0.0
        for at, result in zip(open_, found, strict=True):
            if result.type in LATER_TYPES:
                again.append(at)
                why = result.sentence
                after = max(after, result.retry_after)
                continue
            results[at] = result
            if self.wait and result.state == "stored":
                # Stays the answer if the time is up.
                again.append(at)
        if not again:
            return [], None
        if why is None:
            return again, _Pause(why=GivenUp(sentence="RabbitMQ has not confirmed yet", code=TRY_LATER), stored=True)
        return again, _Pause(why=GivenUp(sentence=why, code=TRY_LATER), after=after)

    def _time_is_up(
        self, open_: list[int], results: list[Result | None], why: GivenUp, unknown: bool
    ) -> GivenUp | None:
        if all(results[at] is not None for at in open_):
            # All of them are stored; what is not confirmed in time shows in their state.
            return None
        return attrs.evolve(why, unknown=unknown)

    def _ask(self, lines: list[bytes], deadline: float, meanwhile: _Once) -> list[Result] | _Pause | _Split | GivenUp:
        """One request and its answer."""
        now = self._clock()
        path, until = "/messages", deadline
        if self.wait:
            seconds = max(min(deadline - now, WAIT), 0.05)
            path = "/messages?wait=confirmed" + (f"&timeout={seconds:.3f}s" if self._may_ask(seconds) else "")
            until = now + seconds + GRACE
        headers = {"Content-Type": "application/x-ndjson", "Accept": "application/x-ndjson, application/problem+json"}
        try:
            self._client.send("POST", path, deadline=until, body=b"\n".join(lines) + b"\n", headers=headers)
            meanwhile()
            answer = self._client.receive(deadline=until)
        except Unreachable as error:
            why = GivenUp(sentence=str(error), code=UNREACHABLE)
            return _Pause(why=why) if self._met else why
        except AnswerLost as error:
            self._met = True
            return _Pause(why=GivenUp(sentence=str(error), code=TRY_LATER, unknown=True))
        self._met = True
        return self._read(answer, len(lines))

    def _may_ask(self, seconds: float) -> bool:
        return seconds < WAIT and not self._server_decides

    def _read(self, answer: Answer, count: int) -> list[Result] | _Pause | _Split | GivenUp:
        if answer.status == 200:
            results = _results(answer.body)
            if results and len(results) < count and results[-1].type in LATER_TYPES:
                # Cut short: what was handed in is answered, the last one is for all the rest.
                results += results[-1:] * (count - len(results))
            if results is not None and len(results) == count:
                return results
            sentence = f"{self._client.server} did not answer as pubd does; is that pubd's [http] address?"
            return GivenUp(sentence=sentence, code=REFUSED, unknown=True)
        if answer.status in LATER_STATUS:
            why = GivenUp(sentence=answer.sentence, code=TRY_LATER, unknown=answer.status in (500, 502, 504))
            return _Pause(why=why, after=answer.retry_after or 0.0)
        if answer.status == 400 and answer.problem.get("field") == "timeout" and not self._server_decides:
            self._server_decides = True
            return _Pause(why=GivenUp(sentence=answer.sentence, code=REFUSED), stored=True)
        if answer.status == 413:
            return _Split(detail=answer.sentence)
        return GivenUp(sentence=_refusal(answer, self._client), code=REFUSED)


class _Once:
    """Calls it the first time only."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call: Callable[[], None] | None = call

    def __call__(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call()


def _results(body: bytes) -> list[Result] | None:
    """The result lines; None when they are none."""
    results = []
    for line in body.splitlines():
        try:
            said = json.loads(line)
        except (ValueError, RecursionError):
            return None
        if not isinstance(said, dict) or ("error" not in said and not isinstance(said.get("id"), str)):
            return None
        results.append(Result(said=said))
    return results


def _refusal(answer: Answer, client: Client) -> str:
    """Why the daemon wants nothing of us, and what to do about it."""
    said = answer.sentence
    if answer.status == 401:
        return f"{said}; give one with --token-file or PUBD_TOKEN (made by 'pubd token new')"
    if answer.status == 403:
        return f"{said}; the grants of this principal are in pubd.toml"
    if not answer.problem:
        return f"{client.server} answered with {said}; is that pubd's [http] address?"
    return said
