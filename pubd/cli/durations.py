"""Durations on a command line: ``30s``, ``5m``, ``1h30m``; a plain number is in seconds."""

from __future__ import annotations

import click

from pubd.duration import NoDuration, seconds


class Duration(click.ParamType[float]):
    """More than nothing, in seconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """See click."""
        if isinstance(value, float):
            return value
        try:
            found = seconds(str(value))
        except NoDuration as error:
            self.fail(error.sentence, param, ctx)
        if found <= 0:
            self.fail("must be more than nothing", param, ctx)
        return found
