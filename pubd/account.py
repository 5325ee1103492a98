"""The account of a publisher: the books of its spool, and how its deliveries ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from pubd.spool.base import Books


@attrs.frozen(kw_only=True)
class Account:
    """The books, and how deliveries ended (a message may take several)."""

    books: Books
    published: int
    """Deliveries written to RabbitMQ."""
    pending: int
    """Of these, without an answer yet."""
    acked: int
    nacked: int
    returned: int
    lost: int
    poison: int
