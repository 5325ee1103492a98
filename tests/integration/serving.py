"""A publisher and its HTTP intake on a loopback port, in the test's reactor, for clients that are programs."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

import attrs

from pubd.access import Access, Quotas
from pubd.config import SpoolConfig
from pubd.intake.door import Door
from pubd.intake.http.foreign import foreign_routes
from pubd.intake.http.intake import HttpIntake
from pubd.intake.http.status import SpoolFacts, status_routes
from pubd.intake.options import HttpOptions
from pubd.operating import Operating
from pubd.options import Options
from pubd.outcome import Reason
from pubd.policy import Policy
from pubd.publisher import Publisher
from pubd.spool.base import Limits
from tests.integration.support import lane, reactor


@attrs.frozen(kw_only=True)
class Serving:
    """Where it listens, and what is behind it."""

    port: int
    publisher: Publisher
    operations: int
    """In its /openapi.json, that one included."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@asynccontextmanager
async def serving(
    url: str,
    *,
    vhosts: Collection[str] = ("/",),
    access: Access | None = None,
    policy: Policy | None = None,
    max_wait: float = 20.0,
) -> AsyncIterator[Serving]:
    """Memory spool; what it still holds at the end is gone with it."""
    publisher = Publisher.from_url(
        url, reactor=reactor, options=Options(drain_timeout=0.0, policy=policy or Policy(), retain=3600.0)
    )
    door = Door(publisher=publisher, clock=reactor, quotas=Quotas(), max_unanswered=64 << 20)

    def refusal(exchange: str) -> Reason | None:
        known = [status.exchange for status in publisher.status().lanes]
        return lane(publisher, exchange).reason if exchange in known else None

    operating = Operating(clock=reactor, publisher=publisher, spool=SpoolConfig(url="memory:", path=None), intakes=())
    foreign = foreign_routes(door=door, clock=reactor, vhosts=vhosts, refusal=refusal)
    status = status_routes(
        publisher=publisher,
        spool=lambda: SpoolFacts(path=None, limits=Limits(), retain=3600.0),
        ways=lambda: (),
        look=operating.look,
        clock=reactor,
        wall=time.time,
    )
    intake = HttpIntake(
        reactor=reactor,
        options=HttpOptions(listen=("tcp:0:interface=127.0.0.1",), max_wait=max_wait),
        door=door,
        access=access or Access(),
        held=publisher,
        routes=lambda waits: (*operating.routes(), *status(waits), *foreign(waits)),
    )
    publisher.startService()
    intake.startService()
    try:
        (address,) = intake.addresses
        operations = sum(len(route.actions) for route in intake.site.routes)
        yield Serving(port=address.port, publisher=publisher, operations=operations)  # type: ignore[attr-defined]  # IAddress has no port
        assert door.unanswered == 0
    finally:
        await intake.stopService()
        await publisher.stopService()
