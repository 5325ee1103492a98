"""One fault from its beginning to balanced books."""

from __future__ import annotations

import re
from collections.abc import Sequence

import attrs

from tests.drill.cases import Case
from tests.drill.clock import now
from tests.drill.stage import Stage, stage
from tests.drill.watching import STATUS, Sight, messages, watch
from tests.rabbitmq import Node


@attrs.frozen(kw_only=True)
class Played:
    """``screen`` is ``pubd status`` during the fault; ``healthy`` the seconds from the first command to being well."""

    case: Case
    sights: Sequence[Sight]
    screen: str
    typed: Sequence[str]
    healthy: float
    books: str


def play(case: Case, node: Node) -> Played:
    """Bring it about, see what is said, follow that, and balance the books. Raises where anything of it fails."""
    with stage(node, small_disk=case.small_disk) as host:
        host.begin(clock=case.clock)
        host.logged = len(messages(host))
        case.fault(host)
        begun = now()
        sights = watch(host, case.sees, begun)
        said = {sight.view: sight.said for sight in sights}
        done = host.attempt("pubd status")
        begun = now()
        case.mend(host, said[STATUS])
        host.is_well(f"after {host.typed}")
        healthy = now() - begun
        books = host.end()
        return Played(
            case=case,
            sights=[attrs.evolve(sight, said=_neutral(sight.said, host)) for sight in sights],
            screen=_neutral(done.stdout + done.stderr, host),
            typed=[_neutral(command, host) for command in host.typed],
            healthy=healthy,
            books=books,
        )


def _neutral(said: str, host: Stage) -> str:
    """With the names that a real host has."""
    for theirs, ours in (
        (str(host.disk.path), "/var/lib/pubd"),
        (str(host.socket), "/run/pubd/http.sock"),
        (f"127.0.0.1:{host.node.port}", "rabbit.example:5672"),
        *((str(program.pid), "4711") for program in host.others),
    ):
        said = said.replace(theirs, ours)
    return re.sub(
        r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}", "01a20a95-5333-7000-ab35-84120f97a391", said
    )
