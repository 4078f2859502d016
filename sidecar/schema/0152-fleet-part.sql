-- What this host may take of any budget of the fleet's when it is on its own, as the fleet's store said last.

CREATE TABLE fleet_part (
    host  TEXT PRIMARY KEY,     -- what the fleet calls this host
    alone REAL NOT NULL         -- part of 1
) STRICT, WITHOUT ROWID;
