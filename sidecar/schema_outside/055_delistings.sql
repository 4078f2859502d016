-- What was asked to be taken off a list.

CREATE TABLE delisting (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    time    REAL NOT NULL,      -- seconds since the epoch, UTC
    by_whom TEXT NOT NULL,
    object  TEXT NOT NULL,      -- an address or a domain
    list    TEXT NOT NULL,      -- id of the list
    note    TEXT NOT NULL
) STRICT;

CREATE INDEX delisting_by_object ON delisting (object, time);
