-- What the log taught about names: whose provider a recipient domain is, what an envelope domain signs as.

CREATE TABLE learned (
    kind      TEXT NOT NULL,
    name      TEXT NOT NULL,
    value     TEXT NOT NULL,
    last_seen REAL NOT NULL,
    PRIMARY KEY (kind, name, value)
) STRICT, WITHOUT ROWID;
