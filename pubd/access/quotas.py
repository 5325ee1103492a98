"""Quotas: how much a principal may hand in, over all intakes and connections. Pure; the clock is an argument."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from pubd.access.principal import Principal

#: Seconds of its rate that a bucket holds: what may come at once after a pause.
BURST = 1.0
# A wait below the timers' own precision is none; without this, rounding makes a caller that waited exactly wait again.
_INSTANT = 1e-6


@attrs.define
class _Bucket:
    """Level may be below zero: a debt. One unit at least fits, so that slow rates let anything through at all."""

    rate: float
    level: float = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.level = self.size

    @property
    def size(self) -> float:
        return max(1.0, self.rate * BURST)

    def fill(self, seconds: float) -> None:
        self.level = min(self.size, self.level + seconds * self.rate)

    def wait(self, units: float) -> float:
        """Seconds until ``units`` may be taken; what is larger than the bucket may be when it is full."""
        return (min(units, self.size) - self.level) / self.rate


@attrs.define
class _Spent:
    messages: _Bucket | None
    octets: _Bucket | None
    at: float


class Quotas:
    """Token buckets for each principal with a quota, one for messages and one for bytes."""

    def __init__(self) -> None:
        # By name: a principal that is made again of the same configuration has not earned a new bucket.
        self._spent: dict[str, _Spent] = {}

    def spend(self, principal: Principal, messages: int, bytes: int, now: float) -> float:
        """Take ``messages`` with ``bytes`` of bodies at ``now`` (s, monotonic): 0.0, or the seconds to wait first.

        All or nothing. A batch larger than a bucket is let through once that is full, and leaves a debt to wait for.
        """
        if principal.rate is None and principal.byte_rate is None:
            return 0.0
        spent = self._of(principal, now)
        # A clock that is set back earns nothing, and costs nothing either.
        passed, spent.at = max(0.0, now - spent.at), now
        asked = ((spent.messages, messages), (spent.octets, bytes))
        wait = 0.0
        for bucket, units in asked:
            if bucket is not None:
                bucket.fill(passed)
                # Nothing is never too much: empty bodies do not wait for a debt of bytes.
                wait = max(wait, bucket.wait(units) if units else 0.0)
        if wait > _INSTANT:
            return wait
        for bucket, units in asked:
            if bucket is not None:
                bucket.level -= units
        return 0.0

    def _of(self, principal: Principal, now: float) -> _Spent:
        spent = self._spent.get(principal.name)
        if spent is None:
            spent = self._spent[principal.name] = _Spent(None, None, now)
        # The rates of a principal may be others than they were: see Access.reconfigure.
        spent.messages = _bucket(spent.messages, principal.rate)
        spent.octets = _bucket(spent.octets, principal.byte_rate)
        return spent


def _bucket(former: _Bucket | None, rate: float | None) -> _Bucket | None:
    """``former`` where it has this rate; else a new one, as full as that was, and with its debt."""
    if rate is None or (former is not None and former.rate == rate):
        return former if rate is not None else None
    made = _Bucket(rate)
    if former is not None:
        made.level *= former.level / former.size
    return made
