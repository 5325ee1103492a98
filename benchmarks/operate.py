"""What it costs that pubd can be looked at: ``python -m benchmarks.operate``.

Counting, which is in the middle of publishing, in microseconds of wall clock a message; and a page of ``/metrics`` with
as many exchanges and principals in it as are told apart, in milliseconds. Best of several rounds: it is one thread, and
no I/O. Beside them the way of a message in ``benchmarks.durable``, of which counting should be a fiftieth at most.
"""

from __future__ import annotations

import click

from benchmarks.codec import best
from benchmarks.measure import table
from pubd.entry import Entry
from pubd.ledger import Delivery
from pubd.operate.tally import NAMES, Tally
from pubd.outcome import Outcome
from tests.operating import Shown
from tests.rig import Rig

#: Microseconds a message: what the durable way is to cost, of which a prototype was capable.
WAY = 7.0


def entry(exchange: str, principal: str | None = None) -> Entry:
    """One that was accepted."""
    return Entry(
        id="i",
        exchange=exchange,
        routing_key="k",
        message_id="m",
        mandatory=True,
        properties=b"",
        body=b"",
        principal=principal,
    )


def counting(*, exchanges: int, size: int, number: int, rounds: int) -> float:
    """Microseconds a message, in batches of ``size`` that go to so many exchanges in turn."""
    tally = Tally()
    entries = [entry(f"e{n % exchanges}") for n in range(size)]
    deliveries = [Delivery(each, 1, 0.0, 1, Outcome.CONFIRMED) for each in entries]

    def batch() -> None:
        tally.accepted(entries, 0.001)
        tally.answered(deliveries, 0.001)
        tally.settled(deliveries, [])

    return best(batch, number=number, rounds=rounds)[0] / size


def full(shown: Shown) -> None:
    """All names that are counted get something of everything."""
    for number in range(NAMES):
        for outcome in Outcome:
            shown.operating.metrics._tally.answered([Delivery(entry(f"e{number}"), 1, 0.0, 1, outcome)], 0.0)
        shown.operating.metrics._tally.accepted([entry(f"e{number}", f"p{number}")], 0.0)


def page(*, number: int, rounds: int) -> tuple[float, int]:
    """Milliseconds and bytes of a page with everything in it."""
    shown = Shown(Rig())
    try:
        full(shown)
        return best(lambda: shown.ask("/metrics"), number=number, rounds=rounds)[0] / 1e3, len(
            shown.ask("/metrics").body
        )
    finally:
        shown.rig.stop()


@click.command()
@click.option("--number", default=200, show_default=True, help="Batches in a round; a twentieth of it pages.")
@click.option("--rounds", default=7, show_default=True)
def main(number: int, rounds: int) -> None:
    """Measure and print."""
    rows = []
    for name, exchanges, size in (("one", 1, 1000), ("one", 1, 1), ("ten in turn", 10, 1000)):
        micros = counting(exchanges=exchanges, size=size, number=number, rounds=rounds)
        rows.append([f"{name}, batches of {size}", f"{micros:.3f}", f"{micros / WAY:.3f}"])
    click.echo(table(["counting, by exchanges", "µs a message", f"of {WAY:g} µs"], rows))
    millis, size = page(number=max(1, number // 20), rounds=rounds)
    click.echo()
    click.echo(table([f"/metrics, {NAMES} of each", "ms", "KiB"], [["a page", f"{millis:.1f}", f"{size / 1024:.0f}"]]))


if __name__ == "__main__":
    main()
