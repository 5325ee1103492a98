"""TracingOptions: the [tracing] table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping


@attrs.frozen(kw_only=True)
class TracingOptions:
    """``endpoint`` is the URL of a collector that takes OTLP over HTTP; ``ratio`` as of ``Tracing``; seconds."""

    endpoint: str
    ratio: float = 0.0
    service_name: str = "pubd"
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    timeout: float = 10.0
