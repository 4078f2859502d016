-- What was read from the log, and how far. Both grow in the same transaction, so neither can lie about the other.

CREATE TABLE checkpoint (
    source TEXT PRIMARY KEY,   -- as in log.source
    token  TEXT NOT NULL       -- where, in the source's own words
) STRICT, WITHOUT ROWID;

-- One row for each outcome of one recipient that a delivery agent logged. Optional texts are ''.
CREATE TABLE attempt (
    id               INTEGER PRIMARY KEY AUTOINCREMENT,
    time             REAL NOT NULL,   -- of the log line, seconds since the epoch, UTC
    host             TEXT NOT NULL,
    instance         TEXT NOT NULL,
    queue_id         TEXT NOT NULL,
    sender_domain    TEXT NOT NULL,
    recipient_domain TEXT NOT NULL,
    provider         TEXT NOT NULL,
    relay            TEXT NOT NULL,
    dsn              TEXT NOT NULL,
    status           TEXT NOT NULL,   -- sent, deferred, bounced, ...
    rule             TEXT NOT NULL,   -- that classified the reply
    detail           TEXT NOT NULL,   -- its category and leaf
    bounce           TEXT NOT NULL,   -- hard, soft, block, transient
    scope            TEXT NOT NULL,
    delay            REAL NOT NULL,   -- seconds since the message arrived
    key              TEXT NOT NULL    -- the sub-queue that it belongs to
) STRICT;

CREATE INDEX attempt_by_time ON attempt (time);
