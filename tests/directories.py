"""A directory intake on a publisher whose broker is not there: what it accepts stays in the spool, to be counted."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import apsw
import attrs
from twisted.internet.defer import Deferred, succeed

from pubd.errors import PubdError
from pubd.intake.directory import DirectoryIntake
from pubd.intake.options import DirectoryOptions
from pubd.message import Message
from pubd.receipt import Receipt
from tests.integration.support import pause, reactor

_numbers = iter(range(1 << 30))


@attrs.frozen
class Writer:
    """Stands for a Principal with a name and no limits."""

    name: str = "directory"

    def may_publish(self, message: Message) -> bool:
        return not message.exchange.startswith("forbidden")


@attrs.frozen
class Known:
    """Stands for Access: principals by uid."""

    by_uid: dict[int, Any]

    def by_peer(self, uid: int, gid: int, groups: Collection[int] = ()) -> Any:
        del gid, groups
        return self.by_uid.get(uid)


class KeyedDoor:
    """A door to a spool in memory that knows idempotency keys; ``answer`` may give another answer for a message."""

    def __init__(self, answer: Callable[[Message], PubdError | None] = lambda _: None) -> None:
        self.answer = answer
        self.accepted: list[Message] = []
        self.principals: list[str] = []
        self.batches: list[int] = []
        self.taken = self.most_taken = 0
        self.hold: Deferred[None] | None = None
        """Answers wait for this one."""
        self._keys: dict[str | None, Message] = {}

    def submit(self, principal: Any, messages: Any) -> Deferred[list[Receipt | PubdError]]:
        self.batches.append(len(messages))
        answers: list[Receipt | PubdError] = []
        for message in messages:
            error = self.answer(message)
            if error is not None:
                answers.append(error)
                continue
            if message.idempotency_key not in self._keys:
                self._keys[message.idempotency_key] = message
                self.accepted.append(message)
                self.principals.append(principal.name)
            answers.append(Receipt(f"id-{len(self.accepted)}", "m"))
        if self.hold is not None:
            return self.hold.addCallback(lambda _: answers)
        return succeed(answers)

    @property
    def bodies(self) -> list[bytes]:
        return [message.body for message in self.accepted]

    def take(self, size: int) -> bool:
        self.taken += size
        self.most_taken = max(self.taken, self.most_taken)
        return True

    def give(self, size: int) -> None:
        self.taken -= size

    def when_room(self) -> Deferred[None]:
        return succeed(None)


class PlainDoor:
    """A door without principals, quotas and budget."""

    def __init__(self, publisher: Any) -> None:
        self._publisher = publisher

    def submit(self, principal: Any, messages: Any) -> Any:
        return self._publisher.submit_each(messages, principal=principal.name)

    def take(self, size: int) -> bool:
        return size >= 0

    def give(self, size: int) -> None:
        """There is no budget."""

    def when_room(self) -> Any:
        raise AssertionError("there is always room")


class Box:
    """The directory as its writers see it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.new, self.tmp, self.rejected = path / "new", path / "tmp", path / "rejected"

    def make(self) -> Box:
        for path in (self.path, self.new, self.tmp, self.rejected):
            path.mkdir(exist_ok=True)
        return self

    def put(self, name: str | bytes, content: bytes | str = b"") -> Path:
        """As a writer should: written in tmp/, renamed into new/."""
        raw = os.fsencode(name)
        draft = self.tmp / f"draft-{next(_numbers)}"
        draft.write_bytes(content.encode() if isinstance(content, str) else content)
        target = os.path.join(os.fsencode(self.new), raw)
        os.rename(draft, target)
        return Path(os.fsdecode(target))

    @property
    def waiting(self) -> list[str]:
        return sorted(os.listdir(self.new))

    @property
    def refused(self) -> list[str]:
        return sorted(os.listdir(self.rejected))

    def reason(self, name: str) -> str:
        return (self.rejected / f"{name}.reason").read_text()


def intake_of(box: Box, door: Any, **given: Any) -> DirectoryIntake:
    """An intake with an exchange configured, unless ``options`` say otherwise."""
    options = {"exchange": "x", "routing_key": "k", "rescan": 0.05} | given.pop("options", {})
    return DirectoryIntake(
        reactor=reactor,
        door=door,
        options=DirectoryOptions(path=box.path, **options),
        **({"principal": Writer()} | given),
    )


async def comes(condition: Callable[[], object], what: Callable[[], object] = str, seconds: float = 15.0) -> None:
    """Wait for it."""
    until = reactor.seconds() + seconds
    while not condition():
        assert reactor.seconds() < until, f"not in time: {what()}"
        await pause(0.005)


def stored(spool: Path) -> Iterator[tuple[str, bytes]]:
    """Routing key and body of every message in the spool's file."""
    connection = apsw.Connection(f"file:{spool}?mode=ro", flags=apsw.SQLITE_OPEN_URI | apsw.SQLITE_OPEN_READONLY)
    try:
        yield from connection.execute("SELECT routing_key, body FROM message ORDER BY seq")
    finally:
        connection.close()


__all__ = ["Box", "KeyedDoor", "Known", "PlainDoor", "Writer", "comes", "intake_of", "stored"]
