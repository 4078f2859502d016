-- What people did with our mail, as other programs tell it; and what is on its way to core.

CREATE TABLE ingest_event (
    id               INTEGER PRIMARY KEY AUTOINCREMENT,
    key              TEXT NOT NULL UNIQUE,   -- the client's own id: said twice, it counts once
    time             REAL NOT NULL,          -- taken in; seconds since the epoch, UTC
    at               REAL NOT NULL,          -- when it happened
    kind             TEXT NOT NULL,          -- complaint, unsubscribe, open, click, bounce
    recipient        TEXT NOT NULL,          -- SHA-256 of the lower-case address, or the address: report_mail.recipients
    recipient_domain TEXT NOT NULL,
    sending_domain   TEXT NOT NULL,
    campaign         TEXT NOT NULL,
    reply            TEXT NOT NULL           -- of a bounce
) STRICT;

CREATE INDEX ingest_event_by_time ON ingest_event (time, kind);
CREATE INDEX ingest_event_by_campaign ON ingest_event (sending_domain, campaign, kind);

-- Events that core has to hear of, in order; deleted when it has stored them. Ids are never used again.
CREATE TABLE suppression_outbox (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    body   TEXT NOT NULL                     -- JSON
) STRICT;

-- Under which name core knows these numbers: a new store begins anew.
CREATE TABLE suppression_source (name TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
INSERT INTO suppression_source VALUES ('outside-' || lower(hex(randomblob(8))));
