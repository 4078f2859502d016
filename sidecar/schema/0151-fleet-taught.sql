-- What other hosts of the fleet taught this one about names: whose provider a recipient domain is, what an envelope domain
-- signs as. What this host learned itself stands in `learned`, and counts more.

CREATE TABLE fleet_taught (
    kind  TEXT NOT NULL,    -- provider, dkim-domain or from-domain
    name  TEXT NOT NULL,
    value TEXT NOT NULL,
    host  TEXT NOT NULL,    -- who said so last
    at    REAL NOT NULL,    -- when, by the clock of the fleet's store, in seconds since the epoch, UTC
    PRIMARY KEY (kind, name, value)
) STRICT, WITHOUT ROWID;

CREATE INDEX fleet_taught_by_name ON fleet_taught (name);
CREATE INDEX fleet_taught_by_age ON fleet_taught (at);

CREATE TABLE fleet_taught_upto (
    stream TEXT PRIMARY KEY,
    place  TEXT NOT NULL    -- where to read on
) STRICT, WITHOUT ROWID;
