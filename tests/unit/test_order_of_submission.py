"""The order of acceptance is the order of submission, also for what is submitted while the spool is being opened."""

from __future__ import annotations

from pubd.spool.ids import Ids
from tests.network import MemoryNetwork
from tests.peer import Broker
from tests.rig import Rig
from tests.slow_spool import SlowSpool


class OpeningSpool(SlowSpool):
    """Has its ids as soon as its thread has read them, which the reactor hears of later."""

    def known(self) -> None:
        self.ids = self._to_come

    def forget(self) -> OpeningSpool:
        self._to_come: Ids | None = self.ids
        self.ids = None
        return self


def test_nobody_overtakes_what_waits_for_the_spool_to_open() -> None:
    network = MemoryNetwork(Broker(exchanges={"x": {"k"}}))
    spool = OpeningSpool(network, opening=1.0).forget()
    rig = Rig(network, spool=spool)
    rig.publisher.startService()
    rig.submit("first")
    spool.known()
    rig.submit("second")
    network.advance(2)
    assert [each.properties.message_id for each in rig.peer.published] == ["first", "second"]
