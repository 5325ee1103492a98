"""The tables of the ways in: [http], [lines], [directory]."""

from __future__ import annotations

from pubd.config.key import Key, Table
from pubd.config.kinds import COUNT, LISTEN, NAME, PATH, PROPERTIES, TEXT, duration, or_unlimited, size

_LISTEN = Key(
    name="listen",
    kind=LISTEN,
    absent="not listening",
    why="Where to listen, as Twisted writes endpoints: tcp:, tls:, unix: and systemd:. Beyond loopback and unix "
    "sockets it takes TLS and a [[principal]].",
    example='listen = ["tcp:8672:interface=127.0.0.1", "unix:/run/pubd/http.sock:mode=660"]',
)
_MAX_CONNECTIONS = Key(
    name="max_connections",
    kind=COUNT,
    default=1000,
    why="Connections beyond these are closed at once.",
    example="max_connections = 200",
)
_MAX_UNANSWERED = Key(
    name="max_unanswered",
    kind=size(1),
    default="64MiB",
    why="What all connections together have sent and was not answered yet; at this, reading pauses. Whoever has sent a "
    "part of a message may send the rest, one at a time, and pass it by half.",
    example='max_unanswered = "256MiB"',
)

HTTP = Table(
    name="http",
    why="The HTTP interface (docs: HTTP).",
    keys=(
        _LISTEN,
        Key(
            name="max_body",
            kind=size(1),
            default="16MiB",
            why="The largest message or array in a request, decompressed, and the largest line of an NDJSON one.",
            example='max_body = "64MiB"',
        ),
        _MAX_CONNECTIONS,
        _MAX_UNANSWERED,
        Key(
            name="header_timeout",
            kind=duration(0.1),
            default="10s",
            why="How long the head of a request may take to arrive.",
            example='header_timeout = "5s"',
        ),
        Key(
            name="body_timeout",
            kind=duration(0.1),
            default="30s",
            why="How long a body may pause while it arrives.",
            example='body_timeout = "1m"',
        ),
        Key(
            name="idle_timeout",
            kind=duration(0.1),
            default="60s",
            why="How long a connection may wait for its next request.",
            example='idle_timeout = "5m"',
        ),
        Key(
            name="max_wait",
            kind=duration(0.1),
            default="60s",
            why="The longest that ?wait=confirmed waits, whatever ?timeout= says.",
            example='max_wait = "5m"',
        ),
    ),
)

LINES = Table(
    name="lines",
    why="Messages as lines of JSON over a socket (docs: Lines).",
    keys=(
        Key(
            name="listen",
            kind=LISTEN,
            absent="not listening",
            why="Where to listen, as in [http].",
            example='listen = ["unix:/run/pubd/lines.sock:mode=660"]',
        ),
        Key(
            name="max_line",
            kind=size(1),
            default="16MiB",
            why="The longest line that is taken.",
            example='max_line = "1MiB"',
        ),
        _MAX_CONNECTIONS,
        _MAX_UNANSWERED,
        Key(
            name="max_unanswered_lines",
            kind=COUNT,
            default=1000,
            why="Lines of one connection that may wait for their answers; at this, reading from it pauses.",
            example="max_unanswered_lines = 10000",
        ),
        Key(
            name="idle_timeout",
            kind=or_unlimited(duration(0.1)),
            default="unlimited",
            why="A connection that is silent for so long is closed.",
            example='idle_timeout = "1h"',
        ),
    ),
)

DIRECTORY = Table(
    name="directory",
    why="A directory in which each file is a submission (docs: Directory).",
    keys=(
        Key(
            name="path",
            kind=PATH,
            absent="no directory",
            why="The directory; tmp/, new/ and rejected/ are made in it.",
            example='path = "/var/spool/pubd"',
        ),
        Key(
            name="exchange",
            kind=TEXT,
            absent="such files are rejected",
            why="Where a file goes that is neither .json nor .ndjson and has no .meta.json; an empty text is the "
            "default exchange.",
            example='exchange = "files"',
        ),
        Key(
            name="routing_key", kind=TEXT, default="", why="With which routing key.", example='routing_key = "file.new"'
        ),
        Key(
            name="properties",
            kind=PROPERTIES,
            shown=False,
            why="With which properties, as in a message's JSON.",
            example='properties = { content_type = "text/plain", headers = { source = "files" } }',
        ),
        Key(
            name="max_file",
            kind=size(1),
            default="16MiB",
            why="The largest file that is one message, and the longest line of an .ndjson file.",
            example='max_file = "64MiB"',
        ),
        Key(
            name="max_unanswered",
            kind=size(1),
            default="64MiB",
            why="What is read of files and not stored yet; at this, reading pauses.",
            example='max_unanswered = "256MiB"',
        ),
        Key(
            name="rescan",
            kind=duration(0.1),
            default="5s",
            why="How often the directory is read, whatever the kernel has told of changes.",
            example='rescan = "1m"',
        ),
        Key(
            name="principal",
            kind=NAME,
            absent="who the files' owners are",
            why="Whose grants all files have. Without it a file's owner counts, as the peer of a unix socket does.",
            example='principal = "files"',
        ),
    ),
)

INTAKES = (HTTP, LINES, DIRECTORY)
