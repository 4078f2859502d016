-- How far addresses have been warmed up, what is done about bad signs, and how canaries stand.

CREATE TABLE warm_up (
    transport   TEXT NOT NULL,
    provider    TEXT NOT NULL,      -- '*': all together
    day         INTEGER NOT NULL,   -- since 1970-01-01, UTC; the counts are of this day
    figure      REAL NOT NULL,      -- recipients that may go on it
    promised    INTEGER NOT NULL,   -- recipients that smtpd was told to send over it
    turned_away INTEGER NOT NULL,   -- recipients that were too many for the figure
    attempts    INTEGER NOT NULL,
    deferred    INTEGER NOT NULL,   -- attempts, but for greylisting
    accepted    INTEGER NOT NULL,
    final       INTEGER NOT NULL,
    refused     INTEGER NOT NULL,   -- replies against the address itself
    stepped     INTEGER NOT NULL,   -- 1: the figure was taken back on this day
    held        TEXT NOT NULL,      -- why nothing grows out of this day, '' where it may
    used_on     INTEGER NOT NULL,   -- last day that made use of its figure
    warm        INTEGER NOT NULL,   -- 1: its limit is over
    PRIMARY KEY (transport, provider)
) STRICT, WITHOUT ROWID;

CREATE TABLE warm_up_pause (
    transport TEXT PRIMARY KEY,
    by_whom   TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE reaction (
    rule      TEXT NOT NULL,
    object    TEXT NOT NULL,        -- a transport, or a sending domain
    provider  TEXT NOT NULL,        -- '*': everywhere
    evidence  TEXT NOT NULL,
    since     REAL NOT NULL,
    until     REAL NOT NULL,        -- 0: as long as its sign is there
    ended     REAL NOT NULL,        -- when the sign passed and the address began to come back; 0: not yet
    times     INTEGER NOT NULL,     -- how often in a row
    undone_by TEXT NOT NULL,        -- who took it back until the sign passes, '' where nobody did
    PRIMARY KEY (rule, object, provider)
) STRICT, WITHOUT ROWID;

CREATE TABLE canary (
    name    TEXT PRIMARY KEY,
    phase   TEXT NOT NULL,          -- running, promoted or stopped
    since   REAL NOT NULL,
    why     TEXT NOT NULL,
    by_whom TEXT NOT NULL,          -- "canary" where its comparison decided
    counts  TEXT NOT NULL           -- JSON: arm -> measure -> number
) STRICT, WITHOUT ROWID;
