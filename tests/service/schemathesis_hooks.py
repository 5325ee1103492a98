"""What schemathesis cannot know by the document alone; loaded by SCHEMATHESIS_HOOKS."""

from __future__ import annotations

import itertools
import re
from typing import Any

import requests
import schemathesis

_DURATION = re.compile(r"[0-9]{1,5}(\.[0-9]{1,9})?(ms|s|m)?")
_KEY = re.compile(r"[!-~]{1,255}")
_numbers = itertools.count(1)


@schemathesis.serializer("application/x-ndjson", "application/ndjson", "application/jsonl", "*/*")
def as_text(ctx: Any, value: Any) -> Any:  # noqa: ARG001
    """Whatever it is, as bytes; an empty body is none."""
    return value if isinstance(value, bytes) else (str(value) or "\n").encode("utf-8", "surrogatepass")


@schemathesis.hook
def before_call(ctx: Any, case: Any, kwargs: Any) -> None:  # noqa: ARG001
    """What OpenAPI has no way to say: what goes together, and what does not; ``max_wait`` is short here, too."""
    key = case.headers.get("Idempotency-Key")
    if key is not None and _KEY.fullmatch(key):
        # Or most messages would be in conflict with the first one.
        case.headers["Idempotency-Key"] = f"{key[:100]}-{next(_numbers)}" if len(key) < 255 else key
        for given in case.body if isinstance(case.body, list) else [case.body]:
            if isinstance(given, dict) and isinstance(given.get("idempotency_key"), str):
                del given["idempotency_key"]
    if case.operation.path.startswith("/api/") and isinstance(case.body, dict):
        properties = case.body.get("properties")
        if isinstance(properties, dict) and isinstance(properties.get("user_id"), str):
            # RabbitMQ takes one user's only.
            properties["user_id"] = "guest"
    if case.operation.path == "/tail":
        # It has no end.
        query = dict(case.query or {})
        if "for" not in query or _DURATION.fullmatch(str(query["for"])):
            query["for"] = "50ms"
        case.query = query
    query = case.query
    if not query:
        return
    if case.operation.path.startswith("/publish/"):
        for name in ("content_type", "content_encoding", "idempotency_key"):
            query.pop(name, None)
    if "delay" in query:
        query.pop("ttl", None)
        query.pop("not_before", None)
    if _DURATION.fullmatch(str(query.get("timeout", ""))):
        if query.get("wait") == "confirmed" or case.operation.path.startswith("/api/"):
            query["timeout"] = "50ms"
        elif query.get("wait", "stored") == "stored":
            del query["timeout"]


@schemathesis.hook
def after_call(ctx: Any, case: Any, response: Any) -> None:  # noqa: ARG001
    """What was drained accepts again: all other requests are to be answered as ever."""
    if case.operation.path == "/drain" and response.status_code == 200:
        sent = response.request
        known = {name: value for name, value in sent.headers.items() if name.lower() == "authorization"}
        requests.delete(sent.url.partition("?")[0], headers=known, timeout=20)
