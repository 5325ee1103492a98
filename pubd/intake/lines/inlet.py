"""Inlet: from bytes to the lines that may be handed in, within the door's budget."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import CancelledError

from pubd.intake.lines.reader import LineReader

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.defer import Deferred

    from pubd.intake.door import Door
    from pubd.intake.lines.timers import Timers

#: Bytes of an unfinished line that are not counted against the door's budget, which many idle clients would use up.
FREE = 65536
#: Seconds until the door is asked again that had room and not enough of it.
AGAIN = 0.05


class Inlet:
    """Lines of at most ``max_line`` bytes. ``has_room`` is called when it is worth while to ask again."""

    def __init__(self, *, max_line: int, door: Door, timers: Timers, has_room: Callable[[], None]) -> None:
        self._reader = LineReader(max_line)
        self._door = door
        self._timers = timers
        self._on_room = has_room
        self.held: list[bytes] = []
        """Lines that were read and are not handed in."""
        self.starved = False
        """The unfinished line has to wait for room."""
        self._prepaid = 0
        """Bytes of the unfinished line that the door has counted."""
        self._room: Deferred[None] | None = None

    @property
    def pending(self) -> int:
        """Bytes of the line that has not ended."""
        return self._reader.pending

    def reconfigure(self, max_line: int) -> None:
        """Another limit, for the line that comes, too."""
        self._reader.limit = max_line

    def feed(self, data: bytes) -> None:
        """Some bytes, cut anywhere."""
        self.held += self._reader.feed(data)

    def take(self, most: int) -> tuple[list[bytes], int] | None:
        """At most so many lines, and their bytes, which are the door's to be given back; None: there is no room yet."""
        lines = self.held[:most]
        size = sum(map(len, lines)) + len(lines)
        paid = min(self._prepaid, size)
        if not self._door.take(size - paid, self._begun):
            self._wait_for_room()
            return None
        self._stop_waiting()
        self._prepaid -= paid
        # Somebody else's turn, whatever this client sends next.
        self._door.done(self)
        del self.held[:most]
        return lines, size

    def hold_partial(self) -> bool:
        """Have the door let in the line that has not ended; whether it takes room of others."""
        pending = self._reader.pending
        if pending <= FREE:
            # Too long in the end, or over: the room is not needed any more.
            if self._prepaid and not self.held:
                self._give()
            self.starved = False
        elif pending > self._prepaid:
            self.starved = not self._door.take(pending - self._prepaid, self._begun)
            if self.starved:
                self._wait_for_room()
            else:
                self._stop_waiting()
                self._prepaid = pending
        return pending > FREE or self._prepaid > 0

    def forget_partial(self) -> None:
        """The line will not end."""
        self._reader.clear()

    def let_go(self) -> None:
        """Nothing more is handed in."""
        self.held.clear()
        self._reader.clear()
        self._give()
        self._stop_waiting()

    @property
    def _begun(self) -> Inlet | None:
        """For the door: itself, if it holds room for a part of a line."""
        return self if self._prepaid else None

    def _give(self) -> None:
        paid, self._prepaid = self._prepaid, 0
        self._door.done(self)
        if paid:
            self._door.give(paid)

    def _wait_for_room(self) -> None:
        if self._room is not None or "room" in self._timers:
            return
        room = self._door.when_room(self._begun)
        if room.called:
            # There is some, but not enough for this.
            self._timers.after("room", AGAIN, self._on_room)
            return
        self._room = room
        room.addCallbacks(self._has_room, lambda failure: failure.trap(CancelledError))

    def _stop_waiting(self) -> None:
        """The next wait may be another one: of who has a part already."""
        if self._room is not None:
            room, self._room = self._room, None
            room.cancel()
        self._timers.cancel("room")

    def _has_room(self, _: None) -> None:
        self._room = None
        self._on_room()
