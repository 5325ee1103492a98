"""The real daemon as one life: ``twistd -n pubd --config pubd.toml``, all imported before the orders come.

Whoever reads its standard output gets the orders, nothing else, and the end of the file when it dies.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import pika  # noqa: F401
from twisted.scripts.twistd import run

import pubd.service  # noqa: F401
from tests.crash import life
from tests.crash.plan import ROUTED, Orders
from tests.crash.through_http import SOCKET as HTTP
from tests.crash.through_lines import SOCKET as LINES

CONFIG = "pubd.toml"


def config(orders: Orders) -> str:
    """pubd.toml. The value of a JSON text is that of the same text in TOML."""
    plan = orders.plan
    tables: list[tuple[str, Mapping[str, object]]] = [
        ("[broker]", {"urls": [orders.url], "name": plan.prefix}),
        ("[spool]", {"url": f"sqlite:///{orders.spool}", "retain": plan.retain}),
        ("[delivery]", {"window": plan.window}),
        ("[http]", {"listen": [f"unix:{HTTP}:mode=600"]}),
        ("[lines]", {"listen": [f"unix:{LINES}:mode=600"]}),
        *(("[[exchange]]", {"name": name}) for name in plan.queues),
        *(("[[queue]]", {"name": name}) for name in plan.queues),
        *(("[[binding]]", {"exchange": name, "queue": name, "routing_key": ROUTED}) for name in plan.queues),
    ]
    return "\n".join(
        "\n".join([head, *(f"{key} = {json.dumps(value)}" for key, value in table.items())]) + "\n"
        for head, table in tables
    )


def main() -> None:
    orders = life.orders()
    if orders is None:
        return
    Path(CONFIG).write_text(config(orders))
    # The log goes where errors go. Nobody closes the copy but the kernel.
    sign = os.dup(1)
    os.dup2(2, 1)
    life.say(orders.dumps(), sign)
    sys.argv = ["twistd", "-n", "--pidfile=", "pubd", "--config", CONFIG]
    run()


if __name__ == "__main__":
    main()
