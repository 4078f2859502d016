-- How far the fleet has come with addresses that all its hosts send from, as it was when we heard last.

CREATE TABLE fleet_warm_up (
    transport TEXT NOT NULL,
    provider  TEXT NOT NULL,    -- '*': all together
    level     TEXT NOT NULL,    -- JSON, as the fleet's store has it
    PRIMARY KEY (transport, provider)
) STRICT, WITHOUT ROWID;
