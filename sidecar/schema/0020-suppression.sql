-- Who gets no more mail. Rows are added and ended, never changed otherwise: the table is the list and its history.

CREATE TABLE suppression_slot (
    id     INTEGER PRIMARY KEY,
    list   TEXT NOT NULL,              -- global, tenant:LOGIN, domain:EXAMPLE.COM
    reason TEXT NOT NULL,              -- hard-bounce, complaint, ...
    UNIQUE (list, reason)
) STRICT;

CREATE TABLE suppression (
    id                INTEGER PRIMARY KEY AUTOINCREMENT,
    who               BLOB NOT NULL,      -- keyed digest of the address; the key is in the file suppression.key
    slot              INTEGER NOT NULL,
    address           TEXT NOT NULL,      -- '' with suppression.storage = "hash", and where only the digest was told
    evidence          TEXT NOT NULL,      -- the log line, the report, the file; '' with storage = "hash"
    provider          TEXT NOT NULL,
    since             REAL NOT NULL,      -- seconds since the epoch, UTC
    until             REAL NOT NULL,      -- ends by itself; 0: never
    provisional_until REAL NOT NULL,      -- may be withdrawn as an outage until then; 0: stands
    by_whom           TEXT NOT NULL,      -- the rule, or who did it by hand
    ended_at          REAL NOT NULL,      -- 0: in force
    ended_by          TEXT NOT NULL,
    ended_why         TEXT NOT NULL
) STRICT;

CREATE UNIQUE INDEX suppression_in_force ON suppression (who, slot) WHERE ended_at = 0;
CREATE INDEX suppression_by_end ON suppression (until) WHERE ended_at = 0 AND until > 0;
CREATE INDEX suppression_on_probation ON suppression (provisional_until) WHERE ended_at = 0 AND provisional_until > 0;

-- Digests whose entries changed since the file suppressed.index was made.
CREATE TABLE suppression_delta (
    id  INTEGER PRIMARY KEY AUTOINCREMENT,
    who BLOB NOT NULL
) STRICT;

-- Bounces that may pass, counted until a rule fires or a delivery ends the count.
CREATE TABLE suppression_count (
    who    BLOB NOT NULL,
    reason TEXT NOT NULL,
    first  REAL NOT NULL,
    last   REAL NOT NULL,
    times  INTEGER NOT NULL,
    PRIMARY KEY (who, reason)
) STRICT, WITHOUT ROWID;

-- Up to which of its events another process has been heard: it may say them again.
CREATE TABLE suppression_heard (
    source TEXT PRIMARY KEY,
    number INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Which store, and which key: of another one neither the file of digests nor the digests themselves are of use.
CREATE TABLE suppression_identity (
    name  TEXT PRIMARY KEY,            -- store, key
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- What was delivered to somebody by a sending domain since they last opened or clicked.
CREATE TABLE engagement (
    who        BLOB NOT NULL,
    domain     TEXT NOT NULL,
    deliveries INTEGER NOT NULL,
    first_at   REAL NOT NULL,          -- of the first delivery
    engaged_at REAL NOT NULL,          -- 0: never
    PRIMARY KEY (who, domain)
) STRICT, WITHOUT ROWID;
