"""The line reader against any stream: ``python -m tests.fuzz.lines --seconds 300``, as :mod:`tests.fuzz.wire`.

The first byte of an input says how the rest is cut into reads.
"""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from tests.fuzz.engine import Found, command
from tests.fuzz.wire import FRAGMENTS as WORDS

#: Bytes of a line, lines unanswered: both are met in a few hundred bytes.
MAX_LINE, MAX_UNANSWERED = 120, 4
GOOD = b'{"exchange":"x","body":"text"}'
FRAGMENTS: tuple[bytes, ...] = (
    GOOD,
    GOOD + b"\n",
    b"\n",
    b"\r\n",
    b"\r",
    b"x" * MAX_LINE,
    b"x" * (MAX_LINE + 1) + b"\n",
    b'{"exchange":"x","wait":"confirmed"}\n',
    b'{"exchange":"x","wait":"confirmed","timeout":0}\n',
    b'{"exchange":"x","wait":"stored","timeout":"1h"}\n',
    b'{"op":"auth","token":"pubd_x"}\n',
    b'"wait":',
    b'"timeout":',
    b'"op":',
    b'"confirmed"',
)


def check(raw: bytes) -> bool:
    """Whether something was stored. Raises Found, or what was raised, if a promise was broken.

    Each line has one answer, in order, of one line of JSON; the same whatever the reads; what is stored are messages;
    nothing is left of the connection, and nothing is written into the log as a mistake of pubd's.
    """
    from pubd.intake.lines.request import token_of

    size, stream = (raw[0] % 64 + 1, raw[1:]) if raw else (1, b"")
    for line in stream.split(b"\n"):
        token_of(line)
    whole = _heard([stream], raw)
    if _heard([stream[at : at + size] for at in range(0, len(stream), size)], raw) != whole:
        raise Found("the reads make a difference", raw)
    return bool(whole[1])


def _heard(chunks: list[bytes], raw: bytes) -> tuple[list[Any], list[bytes]]:
    from pubd.intake.lines.terms import DENIAL
    from pubd.intake.problem import TYPES
    from tests.fuzz.complaints import no_complaints
    from tests.near import Near

    with no_complaints(raw):
        near = Near(max_line=MAX_LINE, max_unanswered_lines=MAX_UNANSWERED)
        for chunk in chunks:
            if not near.transport.disconnecting:
                near.connection.dataReceived(chunk)
            near.clock.advance(0)
        near.connection.readConnectionLost()
        # Who waits for a confirm that never comes, and who was denied.
        for seconds in (0, 0, DENIAL, 40.0, 4000.0):
            near.clock.advance(seconds)
        said = near.transport.written
        stored = [message.body for message in near.desk.messages]
        near.lose()
    if said and not said.endswith(b"\n"):
        raise Found("an answer without an end", raw)
    answers = [json.loads(each) for each in said.splitlines()]
    for each in answers:
        error = each.get("error")
        if error is None:
            if each["state"] != "stored":
                raise Found("an answer that cannot be", raw)
        elif error["type"] not in TYPES or error["type"] == "internal" or not error["detail"].isprintable():
            raise Found("an error of no use", raw)
    *whole, last = b"".join(chunks).split(b"\n")
    # A return makes a line only where no newline follows.
    lines = sum(line not in (b"", b"\r") for line in whole) + bool(last)
    denied = any(each.get("error", {}).get("type") == "not-authenticated" for each in answers)
    if len(answers) != lines and not denied:
        raise Found(f"{lines} lines, {len(answers)} answers", raw)
    if sum("state" in each for each in answers) != len(stored):
        raise Found("more was stored than said, or less", raw)
    return answers, stored


inputs: st.SearchStrategy[bytes] = st.builds(
    lambda size, parts: bytes([size]) + b"".join(parts),
    st.integers(0, 63),
    st.lists(st.sampled_from(FRAGMENTS) | st.sampled_from(WORDS) | st.binary(max_size=5), max_size=20),
)

main = command(
    check,
    inputs=inputs,
    seeds=[b"\x07" + GOOD + b"\n" + GOOD, b"\x00" + GOOD + b"\n\n" + b"x" * 200 + b"\n", b"\x01" + FRAGMENTS[7]],
    fragments=(*FRAGMENTS, *WORDS),
    instrument=("pubd.intake",),
    load=("tests.near",),
    doc="Look for streams on which the line reader breaks its promises.",
)

if __name__ == "__main__":
    main()
