"""Routes for clients that speak somebody else's format: CloudEvents, and RabbitMQ's management API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pubd.intake.http.events import CloudEvents
from pubd.intake.http.management import ManagementPublish
from pubd.intake.http.route import Action, Route

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from pubd.intake.door import Door
    from pubd.intake.http.waits import Waits
    from pubd.outcome import Reason


def foreign_routes(
    *,
    door: Door,
    clock: Any,
    vhosts: Collection[str],
    refusal: Callable[[str], Reason | None] = lambda _: None,
) -> Callable[[Waits], Iterable[Route]]:
    """For :class:`pubd.intake.http.intake.HttpIntake`. ``vhosts`` are those of the brokers that pubd publishes to.

    ``refusal`` tells why RabbitMQ takes nothing for an exchange at the moment, if it is so.
    """

    def routes(waits: Waits) -> Iterable[Route]:
        events = CloudEvents(door=door, waits=waits, clock=clock)
        management = ManagementPublish(door=door, waits=waits, vhosts=vhosts, refusal=refusal)
        return (
            Route(path="/cloudevents/{exchange}", actions={"POST": Action(act=events.post, media=None)}),
            Route(
                path="/api/exchanges/{vhost}/{name}/publish",
                actions={"POST": Action(act=management.publish, media=None)},
            ),
        )

    return routes
