-- What the feeds told: the newest value of each measure, its history, and the answers as they came.

CREATE TABLE feed (
    name     TEXT PRIMARY KEY,
    asked_at REAL NOT NULL,   -- seconds since the epoch, UTC; 0: never
    told_at  REAL NOT NULL,
    next_at  REAL NOT NULL,
    failures INTEGER NOT NULL,
    trouble  TEXT NOT NULL,   -- '' where the last poll told something
    why      TEXT NOT NULL,
    since    REAL NOT NULL
) STRICT, WITHOUT ROWID;

-- What is known of each measure: the last value that was told, and how the last poll ended, which says nothing
-- against that value.
CREATE TABLE measure (
    feed      TEXT NOT NULL,
    object    TEXT NOT NULL,
    measure   TEXT NOT NULL,
    outcome   TEXT NOT NULL CHECK (outcome IN ('ok', 'no_data', 'unknown')),
    why       TEXT NOT NULL,   -- '' for ok
    polled_at REAL NOT NULL,
    value     REAL,            -- of the last ok
    text      TEXT NOT NULL,
    at        REAL NOT NULL,   -- what that value describes
    told_at   REAL NOT NULL,   -- 0: never
    PRIMARY KEY (feed, object, measure)
) STRICT, WITHOUT ROWID;

-- Each change of a value, and one row a day where it stays the same: what trends are drawn from.
CREATE TABLE history (
    feed    TEXT NOT NULL,
    object  TEXT NOT NULL,
    measure TEXT NOT NULL,
    at      REAL NOT NULL,
    value   REAL,
    text    TEXT NOT NULL,
    PRIMARY KEY (feed, object, measure, at)
) STRICT, WITHOUT ROWID;

-- Answers as they came, without secrets: formats drift, and one wants to read them again.
CREATE TABLE answer (
    id    INTEGER PRIMARY KEY AUTOINCREMENT,
    feed  TEXT NOT NULL,
    time  REAL NOT NULL,
    asked TEXT NOT NULL,
    body  BLOB NOT NULL       -- zlib
) STRICT;

CREATE INDEX answer_by_feed ON answer (feed, id);
