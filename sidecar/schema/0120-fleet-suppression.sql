-- What this host tells the fleet about its suppression list. A row is kept for a while after it was read back, for a store
-- of the fleet that loses its memory.

CREATE TABLE fleet_told (
    number INTEGER PRIMARY KEY AUTOINCREMENT,   -- without a gap: who hears of one knows whether any was missed
    at     REAL NOT NULL,                       -- seconds since the epoch, UTC
    change TEXT NOT NULL,                       -- JSON, as it is told
    heard  INTEGER NOT NULL                     -- 1: we have read it back, so it has its place among those of others
) STRICT;

-- Persons whom another host erased, until that is done here as well.
CREATE TABLE fleet_erasure (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    address TEXT NOT NULL,
    forget  INTEGER NOT NULL,
    by_whom TEXT NOT NULL
) STRICT;
