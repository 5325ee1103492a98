"""What the shell is given for a name that begins somehow: exchanges and ids that the running pubd knows of.

Quick, and never a word when there is no answer: a line is being typed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pubd.cli.connect import connect
from pubd.cli.daemon import Daemon
from pubd.cli.failure import Failure

if TYPE_CHECKING:
    import click

#: Seconds that completion may take, and names that are of use.
PATIENCE = 1.0
MOST = 50


def complete_exchange(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Exchanges that something was published to; the default exchange is amq.default."""
    del param
    try:
        lanes = _asked(ctx).get("/status")["lanes"]
        names = [lane["exchange"] or "amq.default" for lane in lanes]
    except (Failure, KeyError, TypeError):
        return []
    return sorted(name for name in names if name.startswith(incomplete) and name.isprintable())[:MOST]


def complete_id(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Ids of messages that wait for a person; of these there are few, and they are typed."""
    del param
    given = ctx.params.get("ids") or ()
    try:
        page = _asked(ctx).get("/messages", state="parked", limit="1000")
        ids = [record["id"] for record in page["messages"]]
    except (Failure, KeyError, TypeError):
        return []
    return [id for id in ids if id.startswith(incomplete) and id not in given][:MOST]


def _asked(ctx: click.Context) -> Daemon:
    """By what stands in the line so far, or in the environment. Raises Failure."""

    def option(name: str, variable: str) -> Any:
        return ctx.params.get(name) or os.environ.get(variable) or None

    def file(name: str, variable: str) -> Path | None:
        found = option(name, variable)
        return Path(found) if found is not None else None

    client = connect(
        server=option("server", "PUBD_SERVER"),
        token=option("token", "PUBD_TOKEN"),
        token_file=file("token_file", "PUBD_TOKEN_FILE"),
        cacert=file("cacert", "PUBD_CACERT"),
        cert=ctx.params.get("cert"),
        key=ctx.params.get("key"),
    )
    return Daemon(client, timeout=PATIENCE)
