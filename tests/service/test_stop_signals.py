"""How the process ends by signals: at once where nothing can come, at once at the second one, and never with a loss."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as installed_reactor
from twisted.internet.threads import deferToThread

from tests.peer import Acks, Broker, PeerFactory
from tests.service.conftest import Run
from tests.service.process import until
from tests.service.reloading import TEXT, Http, Reloading

reactor: Any = installed_reactor
PATIENT = TEXT.replace("drain_timeout = 3", 'drain_timeout = "1h"')


@pytest.fixture
def broker() -> Iterator[tuple[Broker, str]]:
    """A scripted one that keeps its answers, and its URL."""
    broker = Broker(exchanges={"x": {"k"}}, acks=Acks.HELD)
    factory = PeerFactory(broker, reactor)
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    yield broker, f"amqp://guest:guest@127.0.0.1:{port.getHost().port}/%2F"
    pytest_twisted.blockon(port.stopListening())
    for peer in factory.peers:
        if peer.transport is not None:
            peer.drop()


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
@pytest_twisted.ensureDeferred
async def test_a_second_signal_ends_it_at_once_and_nothing_is_lost(
    broker: tuple[Broker, str], run: Run, tmp_path: Path, second: signal.Signals
) -> None:
    peer, url = broker

    def end_by_two() -> list[str]:
        pubd = Reloading(tmp_path, run, PATIENT.replace("{url}", url)).ready()
        with closing(Http(pubd.port)) as http:
            ids = [http.send("x", "k", str(number))[1]["id"] for number in range(50)]
            until(lambda: pubd.status["deliveries"]["pending"] == 50)
        pubd.program.signal(signal.SIGTERM)
        pubd.program.says("SIGTERM: stopping", "waiting up to 3600 s")
        # A reload has no say in that.
        pubd.program.signal(signal.SIGHUP)
        pubd.program.says("SIGHUP: stopping already")
        pubd.program.signal(second)
        assert pubd.program.ends() == -second
        return ids

    def start_again(ids: list[str]) -> None:
        pubd = Reloading(tmp_path, run, PATIENT.replace("{url}", url)).ready()
        until(lambda: pubd.status["books"]["confirmed"] == 50, what=lambda: str(pubd.status["books"]))
        with closing(Http(pubd.port)) as http:
            states = {http.ask("GET", f"/messages/{id}")[1]["state"] for id in ids}
        assert states == {"confirmed"}
        pubd.program.signal(signal.SIGTERM)
        assert pubd.program.ends() == 0
        pubd.program.says("every accepted message is settled")

    ids = await deferToThread(end_by_two)
    assert len({each.properties.message_id for each in peer.published}) == 50
    peer.acks = Acks.MULTIPLE
    await deferToThread(start_again, ids)
    assert len({each.properties.message_id for each in peer.published}) == 50


@pytest_twisted.ensureDeferred
async def test_what_waits_for_a_repair_is_not_waited_for(broker: tuple[Broker, str], run: Run, tmp_path: Path) -> None:
    peer, url = broker
    peer.users = {"guest": "another"}

    def life() -> None:
        text = PATIENT.replace("{url}", url).replace("sqlite:///pubd.db", "memory:")
        pubd = Reloading(tmp_path, run, text)
        pubd.program.says("no retry will cure this")
        with closing(Http(pubd.port)) as http:
            assert http.send("x", "k")[0] == 202
        pubd.program.signal(signal.SIGTERM)
        # Not after an hour.
        assert pubd.program.ends() == 0
        pubd.program.says("1 messages were held in memory and are gone")

    await deferToThread(life)
