"""Message: what it takes, what it refuses with which words, and that nobody can change it afterwards."""

from __future__ import annotations

import copy
import enum
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Decimal, localcontext
from typing import Any

import attrs
import pytest

from pubd.errors import InvalidMessage
from pubd.fields import MAX_DEPTH, scaled
from pubd.message import DEFAULT_FRAME_MAX, HEADER_FRAME_OVERHEAD, MAX_BODY, MAX_EXPIRATION, Message

SHORT_STRINGS = [
    "exchange",
    "routing_key",
    "content_type",
    "content_encoding",
    "correlation_id",
    "reply_to",
    "message_id",
    "type",
    "user_id",
    "app_id",
    "cluster_id",
]


def made(**fields: Any) -> Message:
    return Message(**{"exchange": "orders", **fields})


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def itself() -> list[Any]:
    circle: list[Any] = []
    circle.append(circle)
    return circle


def unfolding() -> list[Any]:
    value: list[Any] = [None]
    for _ in range(30):
        value = [value, value]
    return value


def released() -> memoryview:
    view = memoryview(b"gone")
    view.release()
    return view


class Word(str):
    """A str that lies about itself."""

    __slots__ = ()

    def encode(self, *_args: Any) -> bytes:
        raise RuntimeError("do not ask me")


class Mode(enum.Enum):
    PERSISTENT = 2
    OTHER = "2"


class Level(enum.IntEnum):
    HIGH = 9


class Failing(tzinfo):
    def utcoffset(self, _moment: datetime | None) -> timedelta:
        raise RuntimeError("secret")

    def tzname(self, _moment: datetime | None) -> str:
        return "nowhere"

    def dst(self, _moment: datetime | None) -> None:
        return None


class Broken(Mapping[str, Any]):
    def __getitem__(self, key: str) -> Any:
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError("secret")

    def __len__(self) -> int:
        return 1


# field, value, the field in the error, words of the error
REFUSED: list[tuple[str, Any, str, list[str]]] = [
    *((name, 7, name, ["must be a str", "int"]) for name in SHORT_STRINGS),
    *((name, b"bytes", name, ["must be a str", "bytes"]) for name in SHORT_STRINGS),
    *((name, "x" * 256, name, ["256 bytes", "shorten", "255"]) for name in SHORT_STRINGS),
    *((name, "é" * 128, name, ["256 bytes", "UTF-8"]) for name in SHORT_STRINGS),
    *((name, "ab\ud800", name, ["surrogate at index 2", "remove"]) for name in SHORT_STRINGS),
    ("exchange", None, "exchange", ["must be a str"]),
    ("exchange", "a\nb", "exchange", ["line break", "remove"]),
    ("exchange", "a\rb", "exchange", ["line break", "remove"]),
    ("reply_to", "amq.rabbitmq.reply-to", "reply_to", ["consumer", "name a queue"]),
    ("body", "text", "body", ["must be bytes, not str", "encode"]),
    ("body", None, "body", ["must be bytes"]),
    ("body", [1], "body", ["must be bytes", "list"]),
    ("body", released(), "body", ["released", "copy"]),
    ("delivery_mode", 0, "delivery_mode", ["1 (transient)", "2 (persistent)"]),
    ("delivery_mode", 3, "delivery_mode", ["1 (transient)", "2 (persistent)"]),
    ("delivery_mode", True, "delivery_mode", ["must be an int", "bool"]),
    ("delivery_mode", "2", "delivery_mode", ["must be an int", "str"]),
    ("delivery_mode", Mode.OTHER, "delivery_mode", ["must be an int", "str"]),
    ("priority", -1, "priority", ["out of range", "0 to 255"]),
    ("priority", 256, "priority", ["out of range", "0 to 255"]),
    ("priority", 10**5000, "priority", ["out of range", "0 to 255"]),
    ("priority", True, "priority", ["must be an int", "bool"]),
    ("priority", 1.0, "priority", ["must be an int", "float"]),
    ("expiration", 60000, "expiration", ["must be a str", "int"]),
    *(
        ("expiration", text, "expiration", ["digits"])
        for text in ("", "-1", "+1", " 1", "1 ", "1.5", "5m", "\u0661", "\u00b2", "1\x00", "1\n", "1_0")
    ),
    ("expiration", str(MAX_EXPIRATION + 1), "expiration", ["ten years", str(MAX_EXPIRATION)]),
    ("expiration", "9" * 255, "expiration", ["ten years"]),
    ("expiration", "9" * 256, "expiration", ["256 bytes"]),
    ("timestamp", -1, "timestamp", ["out of range"]),
    ("timestamp", 2**64, "timestamp", ["out of range"]),
    ("timestamp", 1.5, "timestamp", ["must be an int", "float"]),
    ("timestamp", False, "timestamp", ["must be an int", "bool"]),
    ("timestamp", datetime(2026, 1, 1), "timestamp", ["naive", "UTC"]),  # naive on purpose
    ("timestamp", datetime(1969, 12, 31, tzinfo=UTC), "timestamp", ["1970"]),
    ("timestamp", datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=5))), "timestamp", ["1970 to 9999"]),
    ("timestamp", datetime(2026, 1, 1, tzinfo=Failing()), "timestamp", ["failing timezone", "astimezone"]),
    ("mandatory", 1, "mandatory", ["True, False or None", "int"]),
    ("headers", [("a", 1)], "headers", ["must be a mapping", "list"]),
    ("headers", Broken(), "headers", ["cannot be read (RuntimeError)", "dict"]),
    ("headers", {1: "a"}, "headers", ["name", "must be a str, not int"]),
    ("headers", {"n" * 256: 1}, "headers", ["'nnnnnnnnnnnnnnnnnnnn'", "256 bytes"]),
    ("headers", {"a": {"\ud800": 1}}, "headers['a']", ["name", "surrogate"]),
    ("headers", {"a": "\udfff"}, "headers['a']", ["surrogate"]),
    ("headers", {"n" * 50: 1.5}, f"headers['{'n' * 40}...']", ["float", "Decimal or str"]),
    ("headers", {"a": {"b": [0, 1.5]}}, "headers['a']['b'][1]", ["float", "Decimal or str"]),
    ("headers", {"a": 2**63}, "headers['a']", ["out of range", str(2**63 - 1)]),
    ("headers", {"a": -(2**63) - 1}, "headers['a']", ["out of range", str(-(2**63))]),
    ("headers", {"a": {1, 2}}, "headers['a']", ["type set", "convert"]),
    ("headers", {"a": object()}, "headers['a']", ["type object", "convert"]),
    *(
        ("headers", {"a": Decimal(text)}, "headers['a']", ["decimal", "32-bit", "str"])
        for text in ("NaN", "sNaN", "Infinity", "-Infinity", "2147483648", "-2147483649", "1E+10", "1E-256")
    ),
    *(
        ("headers", {"a": Decimal(text)}, "headers['a']", ["decimal", "32-bit", "str"])
        for text in ("1E+999999", "1E-999999", "1." + "1" * 5000, "3.1415926535")
    ),
    ("headers", {"a": datetime(2026, 1, 1)}, "headers['a']", ["naive", "UTC"]),  # naive on purpose
    ("headers", {"a": datetime(1969, 12, 31, tzinfo=UTC)}, "headers['a']", ["1970"]),
    ("headers", {"a": released()}, "headers['a']", ["released"]),
    ("headers", {"a": nested(MAX_DEPTH + 1)}, "headers", ["deeper than 32", "flatten"]),
    ("headers", {"a": itself()}, "headers", ["deeper than 32", "flatten"]),
    ("headers", {"a": "x" * 140_000}, "headers", ["larger than one frame", "body"]),
    ("headers", {"CC": "key"}, "headers['CC']", ["list of routing keys"]),
    ("headers", {"BCC": {"a": "b"}}, "headers['BCC']", ["list of routing keys"]),
    ("headers", {"CC": ["a", b"b"]}, "headers['CC'][1]", ["must be a str, not bytes"]),
    ("headers", {"CC": ["a" * 256]}, "headers['CC'][0]", ["256 bytes"]),
]


@pytest.mark.parametrize(
    ("field", "value", "named", "words"),
    REFUSED,
    ids=[f"{row[0]}-{type(row[1]).__name__}-{' '.join(row[3])}" for row in REFUSED],
)
def test_what_amqp_or_rabbitmq_refuses_is_refused_with_field_and_fix(
    field: str, value: Any, named: str, words: list[str]
) -> None:
    with pytest.raises(InvalidMessage) as caught:
        made(**{field: value})
    assert caught.value.field == named
    for word in words:
        assert word in caught.value.problem
    assert len(str(caught.value)) < 250


def test_a_structure_that_unfolds_to_a_billion_values_is_refused_at_once() -> None:
    with pytest.raises(InvalidMessage, match="larger than one frame"):
        made(headers={"a": unfolding()})


@pytest.mark.parametrize("name", SHORT_STRINGS)
@pytest.mark.parametrize("text", ["", "x" * 255, "é" * 127, "\U0001f600" * 63, "nul\x00", "tab\t"])
def test_short_strings_reach_to_255_octets(name: str, text: str) -> None:
    assert getattr(made(**{name: text}), name) == text


@pytest.mark.parametrize("text", ["0", "007", "60000", str(MAX_EXPIRATION), "0" * 255])
def test_expiration_takes_what_rabbitmq_reads_as_milliseconds(text: str) -> None:
    assert made(expiration=text).expiration == text


def test_defaults_leave_every_choice_to_the_publisher() -> None:
    message = Message(exchange="")
    assert (message.exchange, message.routing_key, message.body) == ("", "", b"")
    assert [name for name in attrs.asdict(message) if getattr(message, name) is not None] == [
        "exchange",
        "routing_key",
        "body",
    ]


def test_the_exchange_must_be_named() -> None:
    with pytest.raises(TypeError, match="exchange"):
        Message()  # type: ignore[call-arg]  # the point of the test


@pytest.mark.parametrize("body", [bytearray(b"abc"), memoryview(b"abc"), memoryview(b"abcdef")[0:3]])
def test_a_mutable_body_is_copied(body: bytearray | memoryview) -> None:
    message = made(body=body)
    assert type(message.body) is bytes
    assert message.body == b"abc"


def test_a_memoryview_with_steps_is_copied_in_its_own_order() -> None:
    assert made(body=memoryview(b"abcdef")[::-2]).body == b"fdb"


def test_a_body_may_reach_rabbitmqs_default_limit_and_no_further() -> None:
    assert len(made(body=bytes(MAX_BODY)).body) == MAX_BODY
    with pytest.raises(InvalidMessage, match="body: is 134217729 bytes, over the limit of 134217728; split it"):
        made(body=bytes(MAX_BODY + 1))


@pytest.mark.parametrize(("given", "kept"), [(1, 1), (2, 2), (Mode.PERSISTENT, 2)])
def test_delivery_mode_takes_ints_and_enumerations(given: Any, kept: int) -> None:
    mode = made(delivery_mode=given).delivery_mode
    assert mode == kept
    assert type(mode) is int


@pytest.mark.parametrize("priority", [0, 255, Level.HIGH])
def test_priority_takes_an_octet(priority: int) -> None:
    kept = made(priority=priority).priority
    assert kept == priority
    assert type(kept) is int


@pytest.mark.parametrize("mandatory", [True, False, None])
def test_mandatory_takes_three_answers(mandatory: bool | None) -> None:
    assert made(mandatory=mandatory).mandatory is mandatory


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (0, 0),
        (2**64 - 1, 2**64 - 1),
        (datetime(1970, 1, 1, tzinfo=UTC), 0),
        (datetime(2023, 11, 14, 22, 13, 20, 999_999, tzinfo=UTC), 1_700_000_000),
        (datetime(2023, 11, 15, 0, 13, 20, tzinfo=timezone(timedelta(hours=2))), 1_700_000_000),
    ],
)
def test_timestamp_is_kept_in_whole_seconds(given: Any, kept: int) -> None:
    assert made(timestamp=given).timestamp == kept


def test_subclasses_are_reduced_to_their_plain_value() -> None:
    message = made(exchange=Word("e"), routing_key=Word("k"), app_id=Word("a"), headers={Word("n"): Word("v")})
    assert message.headers is not None
    values: list[object] = [message.exchange, message.routing_key, message.app_id, *message.headers.items()]
    assert values == ["e", "k", "a", ("n", "v")]
    assert {type(value) for value in [*values[:3], *next(iter(message.headers.items()))]} == {str}


def test_every_field_type_of_pika_is_a_header() -> None:
    headers = {
        "str": "text",
        "wide": "é",
        "bytes": b"\x00\xff",
        "bytearray": bytearray(b"ab"),
        "bool": True,
        "int": 1,
        "least": -(2**63),
        "most": 2**63 - 1,
        "decimal": Decimal("-1.50"),
        "moment": datetime(2026, 1, 1, 12, 0, 0, 5, tzinfo=timezone(timedelta(hours=1))),
        "none": None,
        "table": {"a": {"b": 1}},
        "array": [1, ["two"], (3,)],
        "": "an empty name",
        "é" * 127: "a long name",
        "CC": ["a", "b"],
        "BCC": (),
    }
    kept = made(headers=headers).headers
    assert kept == {
        **headers,
        "bytearray": b"ab",
        "moment": datetime(2026, 1, 1, 11, tzinfo=UTC),
        "array": (1, ("two",), (3,)),
        "CC": ("a", "b"),
    }


def test_cc_below_the_top_is_a_header_like_any_other() -> None:
    assert made(headers={"a": {"CC": 1}}).headers == {"a": {"CC": 1}}


def test_headers_may_nest_to_the_limit() -> None:
    made(headers={"a": nested(MAX_DEPTH)})


def test_nothing_can_be_smuggled_in_after_the_making() -> None:
    inner: dict[str, Any] = {"list": [1], "table": {"k": "v"}}
    headers: dict[str, Any] = {"inner": inner}
    body = bytearray(b"before")
    message = made(headers=headers, body=body)
    before = copy.deepcopy(headers)
    headers["more"] = 1.5
    inner["list"].append(1.5)
    inner["table"]["k"] = 1.5
    body[:] = b"after!"
    assert message.headers == {"inner": {**before["inner"], "list": (1,)}}
    assert message.body == b"before"
    frozen: Any = message.headers
    with pytest.raises(TypeError):
        frozen["more"] = 1
    with pytest.raises(TypeError):
        frozen["inner"]["table"]["k"] = 1
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        message.body = b"after"  # type: ignore[misc]  # the point of the test


def test_messages_are_equal_by_value_and_not_hashable() -> None:
    assert made(headers={"a": [1]}) == made(headers={"a": (1,)})
    assert made(body=b"a") != made(body=b"b")
    with pytest.raises(TypeError, match="unhashable"):
        hash(made())


def test_evolve_checks_again() -> None:
    message = made(headers={"a": [1, {"b": None}]}, expiration="5")
    assert attrs.evolve(message, body=b"new").headers == message.headers
    with pytest.raises(InvalidMessage, match="expiration"):
        attrs.evolve(message, expiration="soon")


def test_repr_shows_neither_body_nor_values() -> None:
    text = repr(made(routing_key="order.new", body=b"secret", user_id="secret", headers={"token": "secret"}))
    assert text == "Message(exchange='orders', routing_key='order.new', body=<6 bytes>, headers, user_id)"


def test_errors_show_no_values() -> None:
    for fields in ({"body": "secret"}, {"headers": {"a": {"secret"}}}, {"expiration": "secret"}):
        with pytest.raises(InvalidMessage) as caught:
            made(**fields)
        assert "secret" not in str(caught.value)


MOST = DEFAULT_FRAME_MAX - HEADER_FRAME_OVERHEAD


@pytest.mark.parametrize(
    ("fields", "taken"),
    [
        ({}, 37),
        ({"message_id": "short"}, 6),
        ({"app_id": "é"}, 37 + 3),
        ({"timestamp": 1}, 37 + 8),
        ({"priority": 1, "delivery_mode": 1}, 37 + 1),
    ],
)
def test_the_content_header_must_fit_into_one_frame(fields: dict[str, Any], taken: int) -> None:
    # flags 2, table size 4, name "h" 2, type and size of its value 5, delivery mode 1; the given or stamped rest
    room = MOST - (2 + 4 + 2 + 5 + 1) - taken
    made(headers={"h": "x" * room}, **fields)
    with pytest.raises(InvalidMessage, match=r"headers: make properties of 131053 bytes, over the 131052"):
        made(headers={"h": "x" * (room + 1)}, **fields)


def test_limits_stricter_than_the_default_can_be_checked_later() -> None:
    message = made(body=b"12345", headers={"a": "x" * 5000})
    message.check_limits()
    message.check_limits(max_body=5, frame_max=0)
    message.check_limits(frame_max=131072)
    message.check_limits(frame_max=8192)
    made(app_id="a").check_limits(frame_max=4096)
    with pytest.raises(InvalidMessage, match="body: is 5 bytes, over the limit of 4"):
        message.check_limits(max_body=4)
    with pytest.raises(InvalidMessage, match=r"headers: make properties .* 4076 "):
        message.check_limits(frame_max=4096)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("0", (0, 0)),
        ("-0.00", (0, 0)),
        ("0E+999", (0, 0)),
        ("1.50", (15, 1)),
        ("-1E-255", (-1, 255)),
        ("100", (100, 0)),
        ("2E+9", (2_000_000_000, 0)),
        ("2147483647", (2**31 - 1, 0)),
        ("-2147483648", (-(2**31), 0)),
        ("1." + "0" * 300, (1, 0)),
        ("3E+9", None),
    ],
)
def test_decimals_are_scaled_without_the_decimal_context(text: str, parts: tuple[int, int] | None) -> None:
    with localcontext(prec=1):
        assert scaled(Decimal(text)) == parts


# What stays with pubd


def test_times_are_kept_as_seconds() -> None:
    message = made(delay=5, ttl=60)
    assert (message.delay, message.ttl) == (5.0, 60.0)
    assert made(not_before=datetime(2030, 1, 1, 0, 0, 0, 500_000, tzinfo=UTC)).not_before == 1893456000.5
    assert made(not_before=1.5).not_before == 1.5
    assert made(delay=0, not_before=None, ttl=None).delay == 0.0


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"delay": -1}, "delay", "seconds"),
        ({"delay": True}, "delay", "seconds"),
        ({"delay": "5m"}, "delay", "seconds"),
        ({"delay": float("nan")}, "delay", "seconds"),
        ({"ttl": float("inf")}, "ttl", "less than 68719476736"),
        ({"ttl": 0}, "ttl", "more than 0"),
        ({"ttl": 5, "delay": 5}, "ttl", "never be published"),
        ({"delay": 5, "not_before": 5}, "not_before", "one of them"),
        ({"not_before": datetime(2030, 1, 1)}, "not_before", "timezone"),
        ({"idempotency_key": "x" * 256}, "idempotency_key", "255"),
        ({"ordering_key": 7}, "ordering_key", "str"),
    ],
)
def test_what_pubd_cannot_keep_is_refused(fields: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(InvalidMessage, match=words) as refused:
        made(**fields)
    assert refused.value.field == field


def test_keys_of_pubd_take_no_room_in_the_header_frame() -> None:
    room = DEFAULT_FRAME_MAX - HEADER_FRAME_OVERHEAD - 2 - 1 - 37 - 4 - 2 - 5
    message = made(headers={"k": "x" * room}, idempotency_key="i" * 255, ordering_key="o" * 255)
    assert message.idempotency_key == "i" * 255
