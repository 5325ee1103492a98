"""Access: who somebody is, what they may publish, and how much of it. Knows nothing of sockets."""

from __future__ import annotations

from pubd.access.identity import Access
from pubd.access.principal import LOCAL, Grant, Principal
from pubd.access.quotas import Quotas
from pubd.access.refusals import Refusals

__all__ = ["LOCAL", "Access", "Grant", "Principal", "Quotas", "Refusals"]
