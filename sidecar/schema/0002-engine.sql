-- What the engine decided and did, what it knows of each sub-queue, and which messages it holds.

-- Every change, for ever explainable by the line that caused it. Ids are never used again: others read on after one.
CREATE TABLE change (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    time     REAL NOT NULL,
    key      TEXT NOT NULL,      -- TYPE:VALUE@PROVIDER
    kind     TEXT NOT NULL,      -- opened, probing, ramping, closed, held, released, adopted, answered, ...
    state    TEXT NOT NULL,      -- of the sub-queue after it
    why      TEXT NOT NULL,
    line     TEXT NOT NULL,      -- of the log, '' where no line caused it
    rule     TEXT NOT NULL,
    by_whom  TEXT NOT NULL,      -- the engine, an administrator, another host
    messages INTEGER NOT NULL    -- how many it concerned
) STRICT;

CREATE INDEX change_by_time ON change (time);

CREATE TABLE subqueue (
    key         TEXT PRIMARY KEY,
    snapshot    TEXT NOT NULL,   -- JSON, read and written by the engine alone
    opened_rule TEXT NOT NULL,
    opened_line TEXT NOT NULL,
    opened_at   REAL NOT NULL,
    updated_at  REAL NOT NULL
) STRICT, WITHOUT ROWID;

-- The books: messages that are on hold because of us, or will be.
CREATE TABLE hold (
    instance   TEXT NOT NULL,
    queue_id   TEXT NOT NULL,
    keys       TEXT NOT NULL,      -- JSON list
    since      REAL NOT NULL,
    by_way     TEXT NOT NULL CHECK (by_way IN ('answer', 'taken')),
    confirmed  INTEGER NOT NULL,   -- 1: seen on hold
    in_core    INTEGER NOT NULL,   -- 1: the queue manager may still have it in memory
    sender     TEXT NOT NULL,
    recipients TEXT NOT NULL,      -- JSON list
    arrival    REAL NOT NULL,
    PRIMARY KEY (instance, queue_id)
) STRICT, WITHOUT ROWID;
