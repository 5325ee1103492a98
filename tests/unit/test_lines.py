"""The lines intake: order, waiting, back-pressure, who may, and the end."""

from __future__ import annotations

import gc
import json
import random
import resource
import socket
import ssl
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock

from pubd.access import Access, Grant, Principal
from pubd.access.tokens import hash_of, new_token
from pubd.errors import IdempotencyConflict, InvalidOption, PublisherStopped, SpoolFailed, SpoolFull
from pubd.intake.lines import LinesIntake
from pubd.intake.lines.inlet import FREE
from pubd.intake.lines.terms import AUTHENTICATION, DENIAL, LINGER, LONG_LINE, UNKNOWN_LINE
from pubd.intake.options import LinesOptions
from pubd.outcome import Cause, Reason, State
from tests.certs import Certificates
from tests.lines import (
    GOOD,
    STORED,
    answers,
    connect,
    descriptors,
    in_thread,
    line,
    pause,
    said,
    serving,
    talk,
    until,
)
from tests.near import Near
from tests.strictness import Logged

# The same in every run: it is part of the names of tests, which several processes are to agree on.
TOKEN = new_token(random.Random(1).randbytes)
SHOP = Principal(name="shop", grants=(Grant(),), tokens=(hash_of(TOKEN),))
MINE = Principal(name="mine", grants=(Grant(exchange="mine"),), users=(0,))
AUTH = json.dumps({"op": "auth", "token": TOKEN}).encode() + b"\n"


def numbered(number: int, **more: Any) -> bytes:
    return json.dumps({"exchange": "x", "body": str(number)} | more).encode() + b"\n"


# In order


@pytest_twisted.ensureDeferred
async def test_answers_come_in_order_and_each_read_is_one_batch(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        got = await in_thread(talk, served.path, b"".join(map(numbered, range(500))))
        assert [each["id"] for each in got] == [f"id-{n}" for n in range(1, 501)]
        assert [int(each.body) for each in served.desk.messages] == list(range(500))
        assert len(served.desk.batches) <= 5
        assert set(served.desk.principals) == {"local"}


@pytest_twisted.ensureDeferred
async def test_carriage_returns_before_newlines_and_empty_lines_are_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        given = b"\n\r\n" + GOOD.replace(b"\n", b"\r\n") + b"\n" + GOOD
        assert said(await in_thread(talk, served.path, given)) == [STORED, STORED]


@pytest_twisted.ensureDeferred
async def test_a_refusal_among_the_stored_is_in_its_place(tmp_path: Path) -> None:
    async with serving(tmp_path, access=Access([MINE], anonymous=None)) as served:
        mine, yours = numbered(1, exchange="mine"), numbered(2, exchange="yours")
        got = await in_thread(talk, served.path, mine + yours + b"{}\n" + mine)
        assert said(got) == [STORED, "not-allowed", ("invalid-message", "exchange"), STORED]
        assert set(served.desk.principals) == {"mine"}


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (SpoolFull("max_bytes", "it is"), "spool-full"),
        (SpoolFailed("/secret/path"), "spool-failed"),
        (PublisherStopped("stopping"), "stopping"),
        (IdempotencyConflict("k"), ("idempotency-conflict", "idempotency_key")),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_the_spool_refuses(error: Any, expected: object, tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        served.desk.refusal = error
        got = await in_thread(talk, served.path, GOOD * 3)
        assert said(got) == [expected] * 3
        assert "secret" not in str(got)


# Until it is settled


@pytest_twisted.ensureDeferred
async def test_waiting_holds_the_answers_behind_it_but_not_the_messages(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        with connect(served.path) as client:
            client.sendall(numbered(0) + numbered(1, wait="confirmed") + numbered(2))
            assert (await in_thread(line, client)) == {"id": "id-1", "state": "stored"}
            await until(lambda: len(served.desk.messages) == 3)
            served.desk.settle(1)
            assert (await in_thread(line, client)) == {"id": "id-2", "state": "confirmed"}
            assert (await in_thread(line, client)) == {"id": "id-3", "state": "stored"}


@pytest_twisted.ensureDeferred
async def test_what_became_of_it(tmp_path: Path) -> None:
    returned = Reason(cause=Cause.RETURNED, code=312, text="NO_ROUTE")
    poison = Reason(cause=Cause.POISON, code=406, text="PRECONDITION_FAILED")
    ends = [
        (State.CONFIRMED, None),
        (State.PARKED, returned),
        (State.PARKED, poison),
        (State.EXPIRED, None),
        (State.DISCARDED, Reason(cause=Cause.DISCARDED, text="wrong")),
    ]
    async with serving(tmp_path) as served:
        with connect(served.path) as client:
            client.sendall(b"".join(numbered(n, wait="confirmed", timeout="20s") for n in range(5)))
            await until(lambda: len(served.desk.messages) == 5)
            for number in (4, 2, 0, 1, 3):
                served.desk.settle(number, *ends[number])
                await pause(0)
            client.shutdown(socket.SHUT_WR)
            got = await in_thread(answers, client)
        assert said(got) == ["confirmed", "returned", "parked", "expired", "discarded"]
        assert [(each.get("error") or each)["id"] for each in got] == [f"id-{n}" for n in range(1, 6)]


@pytest_twisted.ensureDeferred
async def test_when_the_time_is_over_it_is_stored(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        given = numbered(0, wait="confirmed", timeout=0.05) + numbered(1, wait="stored")
        got = await in_thread(talk, served.path, given)
        assert said(got) == [STORED, STORED]


@pytest_twisted.ensureDeferred
async def test_the_client_goes_while_it_waits(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        with connect(served.path) as client:
            client.sendall(numbered(0, wait="confirmed") * 10)
            await until(lambda: len(served.desk.messages) == 10)
        # It cannot be told from a client that only ended its side until the answer cannot be delivered.
        served.desk.settle(0)
        await pause()
        for number in range(1, 10):
            served.desk.settle(number)
        await until(lambda: served.intake.connections == 0)


@pytest_twisted.ensureDeferred
async def test_words_in_other_places_are_no_wishes(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        given = (
            b'{"exchange":"x","body_json":{"wait":"confirmed","op":"auth","token":"x"}}\n'
            + b'{"exchange":"x","headers":{"wait":"confirmed"}}\n'
        )
        assert said(await in_thread(talk, served.path, given)) == [STORED, STORED]


# Back-pressure


@pytest_twisted.ensureDeferred
async def test_a_client_that_does_not_read_is_paused(tmp_path: Path) -> None:
    """100,000 lines are sent and no answer is read: pubd holds a bounded number, and goes on when they are read."""
    count = 100_000
    async with serving(tmp_path) as served:
        gc.collect()
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with connect(served.path) as client:
            sender = threading.Thread(target=client.sendall, args=(GOOD * count,))
            sender.start()
            taken = -1
            while taken != len(served.desk.messages):
                taken = len(served.desk.messages)
                await pause(0.3)
            # Answers of 34 bytes: what the kernel holds, twice 64 KiB in Twisted, and the lines of one turn.
            assert 1000 <= taken < 25_000
            assert served.door.unanswered == 0
            # The client's own data is most of this.
            assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 60_000

            def read() -> int:
                got = 0
                while got < count:
                    got += client.recv(1 << 20).count(b"\n")
                return got

            assert await in_thread(read) == count
            sender.join()
        assert len(served.desk.messages) == count


@pytest_twisted.ensureDeferred
async def test_so_many_lines_are_unanswered_and_no_more(tmp_path: Path) -> None:
    async with serving(tmp_path, max_unanswered_lines=10) as served:
        served.desk.hold = True
        with connect(served.path) as client:
            client.sendall(GOOD * 45)
            for expected in (10, 20, 30, 40, 45):
                await until(lambda expected=expected: len(served.desk.messages) == expected)  # type: ignore[misc]
                await pause(0.02)
                assert len(served.desk.messages) == expected
                served.desk.release()
            client.shutdown(socket.SHUT_WR)
            assert said(await in_thread(answers, client)) == [STORED] * 45
        assert served.desk.batches == [10, 10, 10, 10, 5]


@pytest_twisted.ensureDeferred
async def test_lines_that_wait_are_unanswered_but_their_bytes_are_free(tmp_path: Path) -> None:
    """While RabbitMQ is away, those who wait for it must not use up the room of all others."""
    async with serving(tmp_path, max_unanswered=5000) as served:
        with connect(served.path) as waiting:
            waiting.sendall(numbered(0, wait="confirmed") * 10)
            await until(lambda: len(served.desk.messages) == 10)
            assert served.door.unanswered == 0
            assert said(await in_thread(talk, served.port, GOOD * 30)) == [STORED] * 30
            for number in range(10):
                served.desk.settle(number)
            waiting.shutdown(socket.SHUT_WR)
            assert said(await in_thread(answers, waiting)) == ["confirmed"] * 10


@pytest_twisted.ensureDeferred
async def test_the_bytes_of_all_connections_are_bounded(tmp_path: Path) -> None:
    async with serving(tmp_path, max_unanswered=5 * len(GOOD), max_unanswered_lines=2) as served:
        served.desk.hold = True
        clients = [connect(served.path) for _ in range(6)]
        for client in clients:
            client.sendall(GOOD * 4)
            client.shutdown(socket.SHUT_WR)
        await until(lambda: len(served.desk.messages) == 4)
        await pause(0.05)
        assert len(served.desk.messages) == 4
        assert served.door.unanswered == 4 * len(GOOD)
        served.desk.hold = False
        served.desk.release()
        for client in clients:
            assert said(await in_thread(answers, client)) == [STORED] * 4
            client.close()


@pytest_twisted.ensureDeferred
async def test_lines_of_half_the_budget_pass_one_by_one(tmp_path: Path) -> None:
    async with serving(tmp_path, max_unanswered=2_100_000, max_line=1_050_000) as served:
        given = numbered(0, body="x" * 1_000_000)
        assert said(await in_thread(talk, served.path, given + GOOD + given)) == [STORED] * 3
        assert len(served.desk.messages[2].body) == 1_000_000


def test_a_budget_that_a_line_would_not_fit_into_is_refused() -> None:
    with pytest.raises(InvalidOption, match="raise max_unanswered to 200 bytes at least, or lower max_line"):
        LinesIntake(
            reactor=Clock(),
            options=LinesOptions(listen=(), max_line=100, max_unanswered=199),
            door=Near().door,
            access=Access(),
        )


@pytest_twisted.ensureDeferred
async def test_many_idle_connections_cost_no_room(tmp_path: Path) -> None:
    """Slow-loris: half a line each, and everybody else is served as before."""
    async with serving(tmp_path, max_unanswered=200_000, max_connections=60) as served:
        idle = [connect(served.path) for _ in range(50)]
        for client in idle:
            client.sendall(b'{"exchange":"' + b"x" * 50_000)
        await until(lambda: served.intake.connections == 50)
        assert said(await in_thread(talk, served.path, GOOD * 1000)) == [STORED] * 1000
        assert served.door.unanswered == 0
        for client in idle:
            client.close()
        await until(lambda: served.intake.connections == 0)


@pytest_twisted.ensureDeferred
async def test_over_max_connections_the_rest_is_closed_at_once(tmp_path: Path, logged: Logged) -> None:
    async with serving(tmp_path, max_connections=2) as served:
        before = descriptors()
        first, second = connect(served.path), connect(served.port)
        await until(lambda: served.intake.connections == 2)
        for _ in range(5):
            assert await in_thread(talk, served.path, b"") == []
        assert len([text for text in logged.texts if "max_connections of [lines]" in text]) == 1
        first.close()
        await until(lambda: served.intake.connections == 1)
        assert said(await in_thread(talk, served.path, GOOD)) == [STORED]
        second.close()
        await until(lambda: descriptors() == before)


# Who it is


@pytest_twisted.ensureDeferred
async def test_a_token_comes_first_and_may_be_pipelined(tmp_path: Path) -> None:
    async with serving(tmp_path, access=Access([SHOP], anonymous=None)) as served:
        got = await in_thread(talk, served.port, b"\n" + AUTH + GOOD * 2)
        assert got[0] == {"state": "authenticated", "principal": "shop"}
        assert said(got[1:]) == [STORED, STORED]
        assert served.desk.principals == ["shop", "shop"]


@pytest_twisted.ensureDeferred
async def test_a_token_decides_also_where_the_socket_would_tell(tmp_path: Path) -> None:
    async with serving(tmp_path, access=Access([SHOP, MINE])) as served:
        await in_thread(talk, served.path, AUTH + GOOD)
        assert served.desk.principals == ["shop"]
        assert said(await in_thread(talk, served.path, GOOD + AUTH)) == ["not-allowed", ("invalid-message", "op")]


@pytest.mark.parametrize(
    "given",
    [
        GOOD + GOOD,
        b"what is this\n" * 3,
        b'{"op":"auth","token":"x"}\n' + GOOD,
        b'{"op":"auth","token":7}\n',
        b'{"op":"auth"}\n',
        AUTH.replace(b"}", b',"more":1}'),
        AUTH.replace(b"auth", b"Auth"),
        b"x" * (UNKNOWN_LINE + 1),
    ],
)
@pytest_twisted.ensureDeferred
async def test_nobody_is_told_so_once_after_a_while(given: bytes, tmp_path: Path, logged: Logged) -> None:
    async with serving(tmp_path, access=Access([SHOP], anonymous=None)) as served:
        with connect(served.port) as client:
            client.sendall(given)
            await pause(DENIAL / 4)
            client.setblocking(False)
            with pytest.raises(BlockingIOError):
                client.recv(1)
            client.settimeout(10)
            got = await in_thread(answers, client)
        assert said(got) == ["not-authenticated"]
        assert served.desk.messages == []
        assert served.door.unanswered == 0
        assert any("refused lines: 127.0.0.1" in text for text in logged.texts)
        assert not any(TOKEN in text for text in logged.texts)


@pytest_twisted.ensureDeferred
async def test_unix_users_are_known(tmp_path: Path) -> None:
    async with serving(tmp_path, access=Access([SHOP, MINE], anonymous=None)) as served:
        await in_thread(talk, served.path, numbered(1, exchange="mine"))
        assert served.desk.principals == ["mine"]
        assert said(await in_thread(talk, served.port, GOOD)) == ["not-authenticated"]


@pytest_twisted.ensureDeferred
async def test_a_client_certificate_tells_who_it_is(certificates: Certificates, tmp_path: Path) -> None:
    guest = Principal(name="visitor", grants=(Grant(),), certificates=("guest",))
    shown = certificates.server
    listen = (
        f"tls:0:interface=127.0.0.1:certificate={shown.cert}:key={shown.key}:client_ca={certificates.ca}",
        f"tls:0:interface=127.0.0.1:certificate={shown.cert}:key={shown.key}",
    )

    def over_tls(port: int, data: bytes) -> list[dict[str, Any]]:
        context = ssl.create_default_context(cafile=str(certificates.ca))
        context.load_cert_chain(str(certificates.client.cert), str(certificates.client.key))
        with connect(port) as plain, context.wrap_socket(plain, server_hostname="localhost") as client:
            client.sendall(data)
            return [line(client) for _ in range(data.count(b"\n"))]

    async with serving(tmp_path, access=Access([guest, SHOP], anonymous=None), listen=listen) as served:
        mutual, plain = (cast("IPv4Address", address).port for address in served.intake.addresses)
        # Longer than what may come from somebody unknown.
        long = numbered(0, body="x" * 3 * FREE)
        assert said(await in_thread(over_tls, mutual, long + GOOD * 2)) == [STORED] * 3
        assert set(served.desk.principals) == {"visitor"}
        assert said(await in_thread(over_tls, plain, AUTH + GOOD)) == ["authenticated", STORED]
        assert served.desk.principals[-1] == "shop"
        assert said(await in_thread(over_tls, plain, GOOD)) == ["not-authenticated"]


# In time of the test's own


@pytest.fixture
def far() -> Access:
    """Nobody is known by the connection itself."""
    return Access([SHOP], anonymous=None)


def test_who_says_nothing_has_so_much_time(far: Access) -> None:
    near = Near(far)
    near.clock.advance(AUTHENTICATION - 0.1)
    assert near.said == []
    near.clock.advance(0.2)
    near.clock.advance(0)
    assert near.said == ["not-authenticated"]
    assert near.transport.ended
    near.clock.advance(LINGER)
    assert near.transport.disconnected
    near.lose()


def test_who_said_it_in_time_may_be_silent_for_good(far: Access) -> None:
    near = Near(far)
    near.connection.dataReceived(AUTH)
    near.clock.advance(1e6)
    assert near.said == ["authenticated"]
    assert not near.transport.disconnecting
    near.lose()


def test_silence_ends_the_connection_where_that_is_asked_for() -> None:
    near = Near(idle_timeout=60.0)
    for _ in range(3):
        near.clock.advance(50)
        near.connection.dataReceived(GOOD)
    near.clock.advance(59)
    assert not near.transport.ended
    near.clock.advance(2)
    assert near.transport.ended
    assert near.said == [STORED] * 3
    near.lose()


def test_silence_within_a_line_is_told() -> None:
    near = Near(idle_timeout=60.0)
    near.connection.dataReceived(GOOD[:-1])
    near.clock.advance(61)
    assert near.said == ["request-timeout"]
    near.lose()


def test_silence_while_we_owe_an_answer_is_ours() -> None:
    near = Near(idle_timeout=60.0)
    near.desk.hold = True
    near.connection.dataReceived(GOOD)
    near.clock.advance(61)
    near.clock.advance(61)
    assert not near.transport.ended
    near.desk.release()
    near.clock.advance(61)
    assert near.said == [STORED]
    assert near.transport.ended
    near.lose()


def test_a_long_line_has_so_much_time_since_it_takes_room() -> None:
    near = Near()
    near.connection.dataReceived(b"x" * (FREE + 1))
    assert near.door.unanswered == FREE + 1
    near.clock.advance(LONG_LINE - 1)
    near.connection.dataReceived(b"x" * 1000)
    assert near.door.unanswered == FREE + 1001
    near.clock.advance(2)
    assert near.said == ["request-timeout"]
    assert near.door.unanswered == 0
    near.lose()


def test_a_long_line_waits_for_room_and_is_taken_then() -> None:
    near = Near()
    assert near.door.take(1 << 20)
    half = len(numbered(0)) - 3
    given = numbered(0, body="x" * (2 * FREE))
    near.connection.dataReceived(given[: FREE + half])
    assert near.transport.producerState == "paused"
    near.door.give(1 << 20)
    assert near.transport.producerState == "producing"
    near.connection.dataReceived(given[FREE + half :])
    assert near.said == [STORED]
    assert near.door.unanswered == 0
    near.clock.advance(LONG_LINE)
    assert near.said == [STORED]
    near.lose()


def test_room_that_never_comes_ends_in_an_answer() -> None:
    near = Near()
    assert near.door.take(1 << 20)
    near.connection.dataReceived(b"x" * (FREE + 1))
    near.clock.advance(LONG_LINE + 1)
    assert near.said == ["request-timeout"]
    near.door.give(1 << 20)
    near.lose()


def test_lines_that_find_no_room_wait_and_nothing_more_is_read() -> None:
    near = Near()
    assert near.door.take(1 << 20)
    near.connection.dataReceived(GOOD)
    assert near.desk.messages == []
    assert near.transport.producerState == "paused"
    near.door.give(1 << 20)
    assert near.said == [STORED]
    assert near.transport.producerState == "producing"
    near.lose()


def test_a_connection_that_is_lost_gives_back_what_it_held() -> None:
    near = Near()
    assert near.door.take(1 << 20)
    near.connection.dataReceived(GOOD + b"x" * (FREE + 1))
    near.door.give(1 << 20)
    near.connection.dataReceived(b"x" * (FREE + 1))
    near.lose()
    # And what was waiting for room does not come back to life.
    assert near.door.take(1 << 20)
    near.door.give(1 << 20)
    assert len(near.desk.messages) == 1


def test_a_connection_that_is_lost_before_the_answer() -> None:
    near = Near()
    near.desk.hold = True
    near.connection.dataReceived(GOOD)
    near.connection.connectionLost()
    assert near.door.unanswered == len(GOOD)
    near.desk.release()
    assert near.door.unanswered == 0
    assert near.said == []


def test_confirmations_that_come_together_are_written_together() -> None:
    near = Near()
    near.connection.dataReceived(numbered(0, wait="confirmed") * 100)
    writes: list[bytes] = []
    near.transport.write = writes.append  # type: ignore[method-assign]
    for number in range(100):
        near.desk.settle(number)
    near.clock.advance(0)
    assert [data.count(b"confirmed") for data in writes] == [100]
    near.lose()


def test_a_mistake_of_ours_closes_the_connection_and_is_logged(logged: Logged) -> None:
    near = Near()
    near.desk.broken = True
    near.connection.dataReceived(GOOD)
    assert near.transport.disconnected
    near.lose()
    assert len(logged.flush(ZeroDivisionError)) == 1


PIECES = st.lists(
    st.sampled_from(
        [
            GOOD,
            GOOD.replace(b"\n", b"\r\n"),
            GOOD[:-1],
            b"\n",
            b"\r\n",
            b"{}\n",
            b"\xff\0\n",
            b"x" * 300 + b"\n",
            b"x" * 201,
            b'{"exchange":"x","wait":"confirmed","timeout":0}\n',
            b'{"wait":1}\n',
            AUTH,
        ]
    ),
    max_size=25,
)


def heard(chunks: Sequence[bytes]) -> tuple[list[object], list[bytes]]:
    near = Near(Access([SHOP]), max_line=200, max_unanswered_lines=3)
    for chunk in chunks:
        near.connection.dataReceived(chunk)
        near.clock.advance(0)
    near.connection.readConnectionLost()
    for _ in range(30):
        near.clock.advance(0)
    near.clock.advance(DENIAL)
    found = near.said, [message.body for message in near.desk.messages]
    near.lose()
    return found


@given(PIECES, st.data())
def test_chunks_make_no_difference(pieces: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(pieces)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    chunks = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert heard(chunks) == heard([stream])


@given(st.lists(st.binary(max_size=400), max_size=8))
def test_any_bytes_are_answered_and_nothing_else_happens(chunks: list[bytes]) -> None:
    answered, stored = heard(chunks)
    assert stored == []
    assert set(answered) <= {"malformed", "too-large"}


# The end


@pytest_twisted.ensureDeferred
async def test_half_closed_it_still_gets_its_answers(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        served.desk.hold = True
        for where in (served.path, served.port):
            with connect(where) as client:
                count = len(served.desk.messages)
                client.sendall(GOOD * 3 + GOOD[:-1])
                client.shutdown(socket.SHUT_WR)
                await until(lambda count=count: len(served.desk.messages) == count + 3)  # type: ignore[misc]
                await pause(0.05)
                served.desk.release()
                assert said(await in_thread(answers, client)) == [STORED] * 3 + ["malformed"]


@pytest_twisted.ensureDeferred
async def test_stopping_answers_what_was_accepted_and_refuses_the_rest(tmp_path: Path) -> None:
    async with serving(tmp_path, max_unanswered_lines=5) as served:
        served.desk.hold = True
        with connect(served.port) as client, connect(served.path) as idle:
            client.sendall(GOOD * 8)
            await until(lambda: len(served.desk.messages) == 5)
            stopped = served.intake.stopService()
            await pause(0.05)
            assert not stopped.called
            # Nobody new.
            with pytest.raises(OSError, match="No such file"):
                connect(served.path)
            client.sendall(GOOD)
            served.desk.release()
            got = await in_thread(answers, client)
            assert said(got) == [STORED] * 5 + ["stopping"] * 3
            assert await in_thread(answers, idle) == []
            client.close()
            idle.close()
            await stopped
        assert len(served.desk.messages) == 5


@pytest_twisted.ensureDeferred
async def test_stopping_does_not_wait_long_for_settlements(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        with connect(served.path) as client:
            client.sendall(numbered(0, wait="confirmed", timeout="1h") * 2)
            await until(lambda: len(served.desk.messages) == 2)
            stopped = served.intake.stopService()
            served.desk.settle(0)
            got = await in_thread(answers, client)
            assert said(got) == ["confirmed", STORED]
            client.close()
            await stopped


def test_stopping_ends_although_the_client_does_not_read() -> None:
    near = Near()
    near.connection.dataReceived(GOOD)
    near.connection.pauseProducing()
    near.connection.dataReceived(GOOD)
    near.connection.stop()
    assert near.said == [STORED, "stopping"]
    near.clock.advance(LINGER)
    assert near.transport.disconnected
    near.lose()


def test_stopping_ends_although_the_spool_does_not_answer() -> None:
    near = Near()
    near.desk.hold = True
    near.connection.dataReceived(GOOD)
    near.connection.stop()
    near.connection.stop()
    assert near.said == []
    near.clock.advance(LINGER)
    assert near.transport.disconnected
    near.connection.connectionLost()
    near.desk.release()
    assert near.door.unanswered == 0
