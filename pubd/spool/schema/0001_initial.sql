-- 0001: messages, what became of them, and the books.
--
-- Forward only: a schema is changed by the next file, never by editing this one. The number of the last file applied
-- stands in PRAGMA user_version. Times are epoch seconds.

-- Exchange names, so that a message's row and its index entry carry a small number instead.
CREATE TABLE exchange (
    number INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;

-- One row for each accepted message until the end of its retention.
CREATE TABLE message (
    -- Order of acceptance: milliseconds since the epoch in the upper bits, a counter in the lower 12. With the spool's
    -- own tag it makes the message's id (a UUIDv7), so that no index of ids is needed.
    seq INTEGER PRIMARY KEY,
    -- 0 ready, 1 deferred, 2 parked, 3 confirmed, 4 expired, 5 discarded. In flight is not stored: after a crash
    -- whatever was claimed is simply ready.
    state INTEGER NOT NULL,
    exchange INTEGER NOT NULL REFERENCES exchange (number),
    routing_key TEXT NOT NULL,
    -- NULL: the id itself.
    message_id TEXT,
    mandatory INTEGER NOT NULL,
    accepted_at REAL NOT NULL,
    -- Attempts that RabbitMQ answered with a nack, a return or a channel error.
    attempts INTEGER NOT NULL,
    due REAL,
    expires_at REAL,
    ordering_key TEXT,
    -- Who handed it in: a name of [[principal]].
    principal TEXT,
    -- Property flags and values of the AMQP content header, as on the wire; opaque here.
    properties BLOB NOT NULL,
    -- NULL once settled.
    body BLOB,
    -- CRC-32 of everything that is published.
    checksum INTEGER NOT NULL,
    -- Why it is deferred, parked, expired or discarded: cause, AMQP reply code, RabbitMQ's text.
    cause TEXT,
    code INTEGER,
    text TEXT,
    -- The settlement batch that ended it. The delivery tag of a settlement other than confirmed.
    batch INTEGER,
    tag INTEGER
) STRICT;

-- What a lane claims next. Partial indices cost nothing for rows in other states.
CREATE INDEX message_ready ON message (exchange, seq) WHERE state = 0;
CREATE INDEX message_deferred ON message (exchange, due) WHERE state = 1;
-- What an operator lists first: everything that waits for something else than its turn.
CREATE INDEX message_waiting ON message (state, seq) WHERE state IN (1, 2);
-- What may be healed, by the route that is missing.
CREATE INDEX message_returned ON message (exchange, routing_key, seq) WHERE state = 2 AND cause = 'returned';
CREATE INDEX message_expiring ON message (expires_at) WHERE expires_at IS NOT NULL AND state < 2;
-- The head of each ordering key.
CREATE INDEX message_ordered ON message (exchange, ordering_key, seq) WHERE ordering_key IS NOT NULL AND state < 3;

-- One row for each batch of settlements: what they have in common, and whose they are. Purging goes by these, oldest
-- first, and so needs no index over settled messages.
CREATE TABLE settlement (
    batch INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    node TEXT,
    channel INTEGER,
    -- The messages' seqs, 8 bytes each, little endian, and in the same manner the delivery tags that confirmed them.
    seqs BLOB NOT NULL,
    tags BLOB NOT NULL
) STRICT;

-- Attempts that were not plain successes, numbered from 1.
CREATE TABLE attempt (
    seq INTEGER NOT NULL,
    number INTEGER NOT NULL,
    at REAL NOT NULL,
    -- More than 1 for lost deliveries only, which share one row (number 0) a message.
    times INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    node TEXT,
    channel INTEGER,
    tag INTEGER,
    code INTEGER,
    text TEXT,
    PRIMARY KEY (seq, number)
) STRICT, WITHOUT ROWID;

-- Known idempotency keys -> the message that they belong to and the digest of its content.
CREATE TABLE idempotency (
    key TEXT PRIMARY KEY,
    seq INTEGER NOT NULL,
    fingerprint BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_seq ON idempotency (seq);

-- The books, in one row: changed in the same transaction as the messages, so that they always agree with them.
CREATE TABLE books (
    accepted INTEGER NOT NULL DEFAULT 0,
    confirmed INTEGER NOT NULL DEFAULT 0,
    expired INTEGER NOT NULL DEFAULT 0,
    discarded INTEGER NOT NULL DEFAULT 0,
    -- Ready or in flight.
    ready INTEGER NOT NULL DEFAULT 0,
    deferred INTEGER NOT NULL DEFAULT 0,
    parked INTEGER NOT NULL DEFAULT 0,
    -- Size of what is held.
    bytes INTEGER NOT NULL DEFAULT 0,
    -- The highest seq ever given: ids never repeat, even after a purge and a clock that was set back.
    last_seq INTEGER NOT NULL DEFAULT 0,
    -- 62 random bits that tell this spool's ids from every other's.
    tag INTEGER NOT NULL
) STRICT;
