-- How far core's events were written as lines for a central log store.

CREATE TABLE event_position (
    name TEXT PRIMARY KEY,       -- of core's table
    last INTEGER NOT NULL,       -- id of the row that was written last
    time REAL NOT NULL           -- its own, seconds since the epoch, UTC
) STRICT, WITHOUT ROWID;
