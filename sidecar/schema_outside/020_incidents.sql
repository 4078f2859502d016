-- Alerts, incidents and what is told of them; and the counts of the log that conditions look at.

-- Conditions on objects of which something is known that is not plain well.
CREATE TABLE alert (
    key  TEXT PRIMARY KEY,      -- the dedup key
    body TEXT NOT NULL          -- JSON, read and written by the outside process alone
) STRICT, WITHOUT ROWID;

CREATE TABLE incident (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    phase     TEXT NOT NULL,    -- open, calm, resolved, closed
    severity  TEXT NOT NULL,
    opened_at REAL NOT NULL,    -- seconds since the epoch, UTC
    ended_at  REAL NOT NULL,    -- 0: not yet
    body      TEXT NOT NULL     -- JSON
) STRICT;

CREATE INDEX incident_by_end ON incident (ended_at);

CREATE TABLE incident_event (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    incident INTEGER NOT NULL,
    time     REAL NOT NULL,
    what     TEXT NOT NULL
) STRICT;

CREATE INDEX incident_event_by_incident ON incident_event (incident, id);

-- Every note for every channel. `sending` is written before the first byte goes out, and what came of it after.
CREATE TABLE outbox (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    note     INTEGER NOT NULL,  -- notes that say the same over several channels have the same number
    channel  TEXT NOT NULL,
    incident INTEGER NOT NULL,
    kind     TEXT NOT NULL,
    body     TEXT NOT NULL,     -- JSON of the note
    state    TEXT NOT NULL CHECK (state IN ('queued', 'sending', 'sent', 'unsure', 'failed', 'dropped')),
    attempts INTEGER NOT NULL,
    made_at  REAL NOT NULL,
    next_at  REAL NOT NULL,     -- not tried before this
    done_at  REAL NOT NULL,
    handed   INTEGER NOT NULL,  -- 1: another channel has it as well
    why      TEXT NOT NULL
) STRICT;

CREATE INDEX outbox_by_state ON outbox (state, channel, id);
CREATE INDEX outbox_by_note ON outbox (note);

-- What later notes of an incident refer to: a Slack thread.
CREATE TABLE thread (
    channel  TEXT NOT NULL,
    incident INTEGER NOT NULL,
    thread   TEXT NOT NULL,
    PRIMARY KEY (channel, incident)
) STRICT, WITHOUT ROWID;

CREATE TABLE channel (
    name         TEXT PRIMARY KEY,
    broken_since REAL NOT NULL, -- 0: it works, as far as is known
    tried_at     REAL NOT NULL,
    why          TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Delivery attempts of core's store, counted: by five minutes for a day, by the hour for a month.
CREATE TABLE tally (
    width    INTEGER NOT NULL,  -- seconds
    begin    INTEGER NOT NULL,
    kind     TEXT NOT NULL,     -- provider, domain, host
    object   TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    sent     INTEGER NOT NULL,
    deferred INTEGER NOT NULL,
    bounced  INTEGER NOT NULL,
    hard     INTEGER NOT NULL,
    connect  INTEGER NOT NULL,
    tls      INTEGER NOT NULL,
    auth     INTEGER NOT NULL,
    PRIMARY KEY (width, begin, kind, object)
) STRICT, WITHOUT ROWID;

CREATE TABLE queue_sample (
    time     REAL PRIMARY KEY,
    messages INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- How far something was read.
CREATE TABLE mark (
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
