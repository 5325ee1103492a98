"""One life of pubd under test: reads its orders from standard input, submits, and says what happens until pubd dies.

Through Python pubd is this process; through HTTP and lines this is a client of it, which outlives it. It is started
early, imports everything and waits for its orders, which are one line of JSON. What it says on standard output, a line
each, is written to the pipe before it goes on, so that it outlives a kill:

``ready``         pubd has been started, and takes messages
``try N ...``     these numbers are about to be submitted, together
``ack N=ID ...``  they were answered with a receipt
``end N=HOW ...`` what became of them: confirmed or parked
``no WHY``        something that is not to be: a refused submission, another settlement, a spool that failed
``done``          everything is settled, and the publisher, where it is here, has stopped
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import (
    FilteringLogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
    textFileLogObserver,
)

from tests.crash import life
from tests.crash.life import say
from tests.crash.plan import Orders
from tests.crash.submitter import Submitter
from tests.crash.through_http import ThroughHttp
from tests.crash.through_lines import ThroughLines
from tests.crash.through_python import ThroughPython
from tests.crash.ways import Gone, Way

WAYS: dict[str, type[Way]] = {"python": ThroughPython, "http": ThroughHttp, "lines": ThroughLines}


async def live(orders: Orders, reactor: Any) -> None:
    """Until pubd dies, or everything is settled."""
    way: Way = WAYS[orders.plan.through](reactor, orders)  # type: ignore[call-arg]  # the Protocol has no __init__
    try:
        await way.begin()
        say("ready")
        await Submitter(reactor, way, orders).run()
        if not orders.finish:
            await way.gone()
        while not await way.settled():
            await deferLater(reactor, 0.05)
        await way.end()
    except Gone:
        return
    say("done")


def main() -> None:
    observer = FilteringLogObserver(textFileLogObserver(sys.stderr), [LogLevelFilterPredicate(LogLevel.warn)])
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
    orders = life.orders()
    if orders is None:
        return
    from twisted.internet import reactor

    running: Any = reactor

    def start() -> None:
        living = Deferred.fromCoroutine(live(orders, running))
        living.addErrback(lambda failure: say(f"no {failure.getErrorMessage()}"))
        living.addBoth(lambda _: running.stop())

    running.callWhenRunning(start)
    running.run()


if __name__ == "__main__":
    main()
