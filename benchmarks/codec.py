"""What it costs to read a message: ``python -m benchmarks.codec``.

Each kind of message beside ``json.loads``, which checks nothing, and beside ``Message()``, which every way in makes
anyhow. Best of several rounds that take turns, in microseconds of wall clock a message: it is one thread and no I/O.
"""

from __future__ import annotations

import json
import timeit
from typing import TYPE_CHECKING

import attrs
import click

from benchmarks.measure import table
from pubd.intake import wire
from pubd.message import Message

if TYPE_CHECKING:
    from collections.abc import Callable

KINDS = {
    "text": b'{"exchange":"orders","routing_key":"order.new","body":"hello"}',
    "text with ids": b'{"exchange":"orders","routing_key":"order.new","body":"hello","content_type":"text/plain",'
    b'"idempotency_key":"order-7","message_id":"m-7"}',
    "JSON as text": rb'{"exchange":"orders","routing_key":"order.new","body":"{\"id\": 7, \"sum\": 2}",'
    rb'"content_type":"application/json"}',
    "body_json": b'{"exchange":"orders","routing_key":"order.new","body_json":{"id":7,"price":1.5,"tags":["a","b"]}}',
    "headers": b'{"exchange":"orders","routing_key":"order.new","body":"hello","headers":{"k":1,"tenant":"x"}}',
    "ttl": b'{"exchange":"orders","routing_key":"order.new","body":"hello","ttl":"5m"}',
    "16 KiB": b'{"exchange":"orders","routing_key":"order.new","body":"' + b"x" * 16384 + b'"}',
}


def best(*ways: Callable[[], object], number: int, rounds: int) -> list[float]:
    """Microseconds a call of each way, of its best round."""
    taken = [[timeit.timeit(way, number=number) for way in ways] for _ in range(rounds)]
    return [min(column) / number * 1e6 for column in zip(*taken, strict=True)]


def measured(raw: bytes, *, number: int, rounds: int) -> list[float]:
    """``decode``, ``Message()`` and ``json.loads`` of one kind."""
    message = wire.decode(raw)
    given = {name: value for name, value in attrs.asdict(message, recurse=False).items() if value is not None}
    return best(
        lambda: wire.decode(raw), lambda: Message(**given), lambda: json.loads(raw), number=number, rounds=rounds
    )


@click.command()
@click.option("--number", default=20000, show_default=True, help="Messages in a round.")
@click.option("--rounds", default=7, show_default=True)
def main(number: int, rounds: int) -> None:
    """Measure and print."""
    rows = []
    for name, raw in KINDS.items():
        decode, message, stdlib = measured(raw, number=number, rounds=rounds)
        rows.append([name, f"{decode:.2f}", f"{message:.2f}", f"{stdlib:.2f}", f"{decode / stdlib:.2f}"])
    click.echo(table(["µs a message", "decode", "of it Message()", "json.loads", "decode / json.loads"], rows))


if __name__ == "__main__":
    main()
