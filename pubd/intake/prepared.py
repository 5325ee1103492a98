"""Prepared: a change that is ready to be made, and cannot fail any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@attrs.frozen(kw_only=True)
class Prepared:
    """Either of the two is called, once: :attr:`apply` makes the change, :attr:`drop` lets go of what it would need."""

    apply: Callable[[], object]
    drop: Callable[[], object] = lambda: None


def together(all: Sequence[Prepared]) -> Prepared:
    """Several as one, in their order."""

    def apply() -> None:
        for each in all:
            each.apply()

    def drop() -> None:
        for each in all:
            each.drop()

    return Prepared(apply=apply, drop=drop)
