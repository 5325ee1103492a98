"""A short campaign of kills; the long one is ``python -m tests.crash.directory``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from random import SystemRandom
from typing import Any

import pytest
import pytest_twisted

from pubd.options import Options
from pubd.publisher import Publisher
from pubd.spool.base import Query
from tests.crash.directory import _ended, _go, _process, carry_out
from tests.directories import Box, PlainDoor, comes, intake_of, stored
from tests.integration.support import reactor
from tests.service.process import until


def test_each_file_is_one_accepted_message_however_often_writer_and_pubd_are_killed(tmp_path: Path) -> None:
    seed = SystemRandom().randrange(1 << 31)
    verdict = carry_out(tmp_path / "box", kills=8, files=200, seed=seed)
    assert verdict.kept, f"seed {seed}: {verdict}"
    assert verdict.messages == 500


@pytest.mark.parametrize("when", [2, 3])
def test_a_large_ndjson_goes_on_where_it_was_when_pubd_was_killed(tmp_path: Path, when: int) -> None:
    box = Box(tmp_path / "box").make()
    message = {"exchange": "x", "routing_key": "k"}
    box.put("large.ndjson", "".join(json.dumps(message | {"body": str(n)}) + "\n" for n in range(5000)))
    for count in (when, when + 2):
        with _ended(_process("serve", box.path, PUBD_FAILPOINT=f"after-commit:{count}")) as pubd:
            _go(pubd)
            assert pubd.wait(20) == -9
    with _ended(_process("serve", box.path)) as pubd:
        _go(pubd)
        until(lambda: not box.waiting)
        until(lambda: not [each for each in (box.path / ".pubd").iterdir() if each.name.startswith("place")])
    assert [body for _, body in stored(box.path / "spool.db")] == [str(n).encode() for n in range(5000)]
    assert box.refused == []


@pytest_twisted.ensureDeferred
async def test_a_file_that_was_left_is_recognised_although_retain_has_passed(tmp_path: Path) -> None:
    box = Box(tmp_path / "box").make()
    spool = f"sqlite:///{tmp_path / 'spool.db'}"
    original = os.unlink

    def unlinking(name: Any, *given: Any, **named: Any) -> Any:
        if name == "left":
            raise OSError(5, "as if pubd had been killed before")
        original(name, *given, **named)

    os.unlink = unlinking  # type: ignore[assignment]  # a kill at this very point, and what goes on after it
    try:
        publisher = Publisher.from_url("amqp://127.0.0.1:1", spool=spool, reactor=reactor)
        publisher.startService()
        intake = intake_of(box, PlainDoor(publisher))
        intake.startService()
        box.put("left", b"once")
        await comes(lambda: publisher.account().books.accepted == 1)
        page = await publisher.find(Query())
        assert await publisher.discard([record.id for record in page.records], "settled")
        await intake.stopService()
        await publisher.stopService()
    finally:
        os.unlink = original
    assert box.waiting == ["left"]
    # Others come before it by their names.
    for n in range(3000):
        box.put(f"a{n:04}", str(n))
    publisher = Publisher.from_url("amqp://127.0.0.1:1", spool=spool, reactor=reactor, options=Options(retain=0.0))
    publisher.startService()
    intake = intake_of(box, PlainDoor(publisher))
    intake.startService()
    await comes(lambda: not box.waiting)
    await intake.stopService()
    books = publisher.account().books
    await publisher.stopService()
    assert books.accepted == 3001
