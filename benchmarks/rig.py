"""What a run needs around it: a process of its own, and a queue that is gone afterwards."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pika

if TYPE_CHECKING:
    from attrs import AttrsInstance

ROOT = Path(__file__).resolve().parent.parent
#: Seconds for one run, its process included.
RUN_TIMEOUT = 120


def in_process(module: str, what: str, load: AttrsInstance) -> Any:
    """What ``python -m module --run what load`` prints, from JSON; raises subprocess.SubprocessError."""
    done = subprocess.run(
        [sys.executable, "-m", module, "--run", what, json.dumps(attrs.asdict(load))],
        cwd=ROOT,
        timeout=RUN_TIMEOUT,
        check=True,
        stdout=subprocess.PIPE,
    )
    return json.loads(done.stdout)


class Queue:
    """A durable queue for one run, reached through the default exchange; gives its name."""

    def __init__(self, url: str) -> None:
        self._connection = pika.BlockingConnection(pika.URLParameters(url))
        self._channel = self._connection.channel()
        self._name = f"pubd-benchmark-{uuid.uuid4().hex[:12]}"

    def __enter__(self) -> str:
        self._channel.queue_declare(self._name, durable=True)
        return self._name

    def __exit__(self, *_: object) -> None:
        # RabbitMQ may have closed a connection that said nothing during a long run.
        self._connection.process_data_events()
        self._channel.queue_delete(self._name)
        self._connection.close()
