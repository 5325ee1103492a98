"""The answers of one connection: one JSON object a line, in the order of the lines that they answer."""

from __future__ import annotations

import json
from collections import deque
from typing import TYPE_CHECKING

from pubd.intake.problem import Problem, problem_of
from pubd.message import Message
from pubd.receipt import Receipt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pubd.errors import PubdError
    from pubd.intake.lines.request import Batch


def stored(id: str) -> str:
    """The message is synced. ``id`` is of pubd's making: nothing in it takes escaping."""
    return f'{{"id":"{id}","state":"stored"}}\n'


def confirmed(id: str) -> str:
    """RabbitMQ took the message."""
    return f'{{"id":"{id}","state":"confirmed"}}\n'


def authenticated(name: str) -> str:
    """The token is ``name``'s, who speaks from now on."""
    return json.dumps({"state": "authenticated", "principal": name}, separators=(",", ":")) + "\n"


def refused(found: Problem) -> str:
    """Nothing was accepted, or what was cannot be confirmed."""
    return json.dumps(found.as_line(), separators=(",", ":")) + "\n"


def texts_of(results: Sequence[Receipt | PubdError]) -> list[str]:
    """One answer for each; a full spool refuses thousands with one error, which is put into words once."""
    said: dict[int, str] = {}
    texts = []
    for result in results:
        if isinstance(result, Receipt):
            texts.append(f'{{"id":"{result.id}","state":"stored"}}\n')
            continue
        text = said.get(id(result))
        if text is None:
            text = said[id(result)] = refused(problem_of(result))
        texts.append(text)
    return texts


def answers_of(results: Sequence[Receipt | PubdError], batch: Batch) -> tuple[list[str | None], dict[int, Receipt]]:
    """One answer for each line of ``batch``, None for those that wait: their receipts, by place of the line.

    ``results`` are those of its messages.
    """
    following = iter(results)
    answers: list[str | None] = []
    waits: dict[int, Receipt] = {}
    for place, request in enumerate(batch.requests):
        if isinstance(request, Problem):
            answers.append(refused(request))
            continue
        result = next(following) if isinstance(request, Message) else request
        if not isinstance(result, Receipt):
            answers.append(refused(problem_of(result)))
        elif place in batch.waits:
            answers.append(None)
            waits[place] = result
        else:
            answers.append(stored(result.id))
    return answers, waits


class Part:
    """The answers to lines that were handed in together; None where there is none yet."""

    __slots__ = ("_said", "answers", "missing")

    def __init__(self, count: int) -> None:
        self.answers: list[str | None] = [None] * count
        self.missing = count
        self._said = 0

    def fill(self, answers: Sequence[str | None]) -> None:
        """All at once; None for those that follow by :meth:`put`."""
        self.answers = list(answers)
        self.missing = self.answers.count(None)

    def put(self, place: int, answer: str) -> None:
        """One that was missing."""
        self.answers[place] = answer
        self.missing -= 1

    def take(self) -> list[str]:
        """What can be said now: everything up to the first that is missing, and nothing twice."""
        said, end = self._said, len(self.answers)
        if self.missing:
            end = self.answers.index(None, said)
        self._said = end
        return self.answers[said:end]  # type: ignore[return-value]  # no None before end

    @property
    def over(self) -> bool:
        """Whether all has been taken."""
        return self._said == len(self.answers)


class Answers:
    """All that is to be said on a connection."""

    def __init__(self) -> None:
        self._parts: deque[Part] = deque()
        self.unanswered = 0
        """Lines whose answers were not taken yet."""

    def expect(self, count: int) -> Part:
        """So many lines were handed in."""
        part = Part(count)
        self._parts.append(part)
        self.unanswered += count
        return part

    def say(self, *answers: str) -> None:
        """These follow what is expected already."""
        self.expect(len(answers)).fill(answers)

    def take(self) -> bytes:
        """What can be written now."""
        taken: list[str] = []
        while self._parts:
            taken += self._parts[0].take()
            if not self._parts[0].over:
                break
            self._parts.popleft()
        self.unanswered -= len(taken)
        return "".join(taken).encode("ascii")
