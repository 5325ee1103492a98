-- 0002: what operators decided, and what they paused.

-- Decisions about single messages, numbered from 1 and purged with them: the latest 50 of each.
CREATE TABLE decision (
    seq INTEGER NOT NULL,
    number INTEGER NOT NULL,
    at REAL NOT NULL,
    -- retry, hold, release, discard
    verb TEXT NOT NULL,
    who TEXT NOT NULL,
    text TEXT NOT NULL,
    PRIMARY KEY (seq, number)
) STRICT, WITHOUT ROWID;

-- Decisions about an exchange (NULL: about all): flush, pause, resume. The latest 200.
CREATE TABLE operation (
    number INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    verb TEXT NOT NULL,
    who TEXT NOT NULL,
    text TEXT NOT NULL,
    exchange TEXT
) STRICT;

-- What nothing is published to until it is resumed; an exchange that is NULL stands for all.
CREATE TABLE pause (
    exchange TEXT UNIQUE,
    at REAL NOT NULL,
    who TEXT NOT NULL,
    text TEXT NOT NULL
) STRICT;

-- What a flush makes ready: deferred because RabbitMQ did not take it, not because a delay was asked for.
CREATE INDEX message_backed_off ON message (seq) WHERE state = 1 AND cause IS NOT NULL;

-- What waits for something else than its turn, with why: an operator's lists of it need not read the rows, whose bodies
-- may be large. In the place of message_waiting.
CREATE INDEX message_why ON message (state, seq, exchange, cause, code, text) WHERE state IN (1, 2);
DROP INDEX message_waiting;
