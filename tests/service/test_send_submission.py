"""When a batch is tried again, and when no more: by a clock of ours, against a daemon with a script."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock

from pubd.cli.client import Client
from pubd.cli.failure import REFUSED, TRY_LATER, UNREACHABLE
from pubd.cli.server import Server
from pubd.cli.submit import LATER_STATUS, Submission
from tests.service.scripted_http import EachLine, Fault, Refuse, ScriptedDaemon, Step, listening

LINE = b'{"exchange": "a", "idempotency_key": "%d"}'


@attrs.define
class Rig:
    """A submission to ``daemon``; ``pauses`` are the seconds that it slept."""

    daemon: ScriptedDaemon
    url: str
    clock: Clock = attrs.Factory(Clock)
    pauses: list[float] = attrs.Factory(list)
    notes: list[str] = attrs.Factory(list)

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.clock.advance(seconds)

    def submission(self, client: Client, *, timeout: float = 30, wait: bool = False) -> Submission:
        return Submission(
            client,
            timeout=timeout,
            wait=wait,
            clock=self.clock.seconds,
            sleep=self.sleep,
            jitter=lambda: 1.0,
        )

    def client(self) -> Client:
        return Client(Server.parse(self.url), clock=self.clock.seconds)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    daemon = ScriptedDaemon()
    with listening(daemon, tmp_path / "s") as url:
        yield Rig(daemon, url)


BUSY = Refuse(status=503, problem={"type": "busy", "detail": "busy"})


def test_pauses_grow_to_a_bound_and_end_with_the_timeout(rig: Rig) -> None:
    rig.daemon.script = [BUSY] * 100
    with rig.client() as client:
        answered = rig.submission(client, timeout=30).submit([LINE % 1], note=rig.notes.append)
    assert rig.pauses[:7] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0])
    assert max(rig.pauses) == 5.0
    assert 20 < rig.clock.seconds() < 30
    assert answered.results == (None,)
    assert answered.given_up is not None
    assert (answered.given_up.code, answered.given_up.unknown) == (TRY_LATER, False)
    assert rig.notes == ["busy"] * len(rig.pauses)


def test_retry_after_is_the_least_pause(rig: Rig) -> None:
    rig.daemon.script = [
        attrs.evolve(BUSY, headers={"Retry-After": "7"}),
        attrs.evolve(BUSY, headers={"Retry-After": "0"}),
        attrs.evolve(BUSY, headers={"Retry-After": "Mon, 23 Nov 2026 21:00:00 GMT"}),
        attrs.evolve(BUSY, headers={"Retry-After": "-1"}),
        EachLine([{"error": {"type": "quota", "detail": "much", "retry_after": 3}}]),
    ]
    with rig.client() as client:
        answered = rig.submission(client).submit([LINE % 1])
    assert answered.given_up is None
    assert rig.pauses == pytest.approx([7, 0.2, 0.4, 0.8, 3])


def test_an_answer_that_was_lost_makes_what_follows_unknown(rig: Rig) -> None:
    rig.daemon.script = [Fault.DROP_AFTER, *[BUSY] * 50]
    with rig.client() as client:
        answered = rig.submission(client, timeout=5).submit([LINE % 1])
    assert answered.given_up is not None
    assert answered.given_up.unknown


def test_a_connection_that_was_closed_while_idle_is_no_reason_to_say_anything(rig: Rig) -> None:
    rig.daemon.script = [Fault.CLOSE]
    with rig.client() as client:
        submission = rig.submission(client)
        assert submission.submit([LINE % 1]).given_up is None
        time.sleep(0.2)
        assert submission.submit([LINE % 2], note=rig.notes.append).given_up is None
    assert (rig.notes, rig.pauses, len(rig.daemon.requests)) == ([], [], 2)


def test_a_daemon_that_goes_away_is_unreachable_in_the_end(tmp_path: Path) -> None:
    daemon = ScriptedDaemon()
    with listening(daemon, tmp_path / "s") as url:
        rig = Rig(daemon, url)
        client = rig.client()
        submission = rig.submission(client, timeout=10)
        assert submission.submit([LINE % 1]).given_up is None
        client.close()
    with client:
        answered = submission.submit([LINE % 2], note=rig.notes.append)
    assert answered.given_up is not None
    assert answered.given_up.code == UNREACHABLE
    assert len(rig.pauses) > 3


def test_what_the_daemon_refuses_altogether_ends_it_at_once(rig: Rig) -> None:
    rig.daemon.script = [Refuse(status=401, problem={"type": "not-authenticated", "detail": "who?"})]
    with rig.client() as client:
        answered = rig.submission(client).submit([LINE % 1, LINE % 2])
    assert rig.pauses == []
    assert answered.given_up is not None
    assert answered.given_up.code == REFUSED


def test_other_work_is_done_once_while_the_daemon_works(rig: Rig) -> None:
    rig.daemon.script = [BUSY, Fault.DROP_BEFORE]
    worked: list[int] = []
    with rig.client() as client:
        rig.submission(client).submit([LINE % 1], meanwhile=lambda: worked.append(len(rig.daemon.stored)))
    assert worked == [0]


def test_nothing_is_not_even_asked(rig: Rig) -> None:
    with rig.client() as client:
        assert rig.submission(client).submit([]).results == ()
    assert rig.daemon.requests == []


_STEPS: st.SearchStrategy[Step] = st.one_of(
    st.none(),
    st.sampled_from(
        [Fault.DROP_BEFORE, Fault.DROP_AFTER, Fault.CUT, Fault.NONSENSE, Fault.CLOSE],
    ),
    st.sampled_from(sorted(LATER_STATUS - {413})).map(lambda status: Refuse(status=status)),
    st.lists(
        st.sampled_from(
            [
                None,
                {"error": {"type": "spool-full", "detail": "full"}},
                {"error": {"type": "stopping", "detail": "stops", "retry_after": 1}},
                {"error": {"type": "busy", "detail": "busy"}},
            ]
        ),
        min_size=12,
        max_size=12,
    ).map(EachLine),
    st.just(Refuse(status=413, problem={"type": "too-large", "detail": "too large"})),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(script=st.lists(_STEPS, max_size=6), count=st.integers(1, 12))
def test_whatever_goes_wrong_each_message_is_stored_once_or_refused(rig: Rig, script: list[Step], count: int) -> None:
    rig.daemon.script = list(script)
    rig.daemon.stored.clear()
    rig.daemon.ids.clear()
    with rig.client() as client:
        answered = rig.submission(client, timeout=1000).submit([LINE % number for number in range(count)])
    rig.daemon.script = []
    assert answered.given_up is None
    stored = [message["idempotency_key"] for message in rig.daemon.stored]
    assert len(stored) == len(set(stored))
    for number, result in enumerate(answered.results):
        assert result is not None
        # Refused is only a line that did not fit into a request of its own.
        assert result.id == rig.daemon.ids.get(str(number)) if not result.error else result.type == "too-large"
