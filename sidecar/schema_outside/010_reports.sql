-- What others write to us about our mail: complaints and non-delivery reports, DMARC and TLS reports.

-- One row for each report mail that was taken in, by the digest of its bytes: read twice, it counts once.
CREATE TABLE report_mail (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    digest   TEXT NOT NULL UNIQUE,
    time     REAL NOT NULL,      -- taken in; seconds since the epoch, UTC
    source   TEXT NOT NULL,      -- "maildir:/path", "imap:user@host", ...
    kind     TEXT NOT NULL,      -- complaint, bounce, dmarc, tls, refused; other: no report
    reporter TEXT NOT NULL,      -- the domain that Authentication-Results prove; '' for none
    trusted  INTEGER NOT NULL,   -- a known reporter
    why      TEXT NOT NULL       -- what of it was refused; '' for nothing
) STRICT;

CREATE INDEX report_mail_by_time ON report_mail (time);

-- Complaints and bounces, one row a recipient (one for an unknown recipient).
CREATE TABLE report_event (
    id               INTEGER PRIMARY KEY AUTOINCREMENT,
    key              TEXT NOT NULL UNIQUE,   -- of the report, not of the mail that brought it
    time             REAL NOT NULL,          -- when the report was taken in
    at               REAL NOT NULL,          -- when it happened, as the report says; else as time
    source           TEXT NOT NULL,
    kind             TEXT NOT NULL,          -- complaint, not-spam, opt-out, auth-failure, bounce, delay
    type             TEXT NOT NULL,          -- Feedback-Type, or the action of a bounce
    trusted          INTEGER NOT NULL,
    reporter         TEXT NOT NULL,
    provider         TEXT NOT NULL,
    recipient        TEXT NOT NULL,          -- SHA-256 of the lower-case address, or the address; '' unknown
    recipient_domain TEXT NOT NULL,
    sending_domain   TEXT NOT NULL,
    source_ip        TEXT NOT NULL,
    reporting_mta    TEXT NOT NULL,          -- who wrote a bounce: one of ours is in the log already
    found_by         TEXT NOT NULL,          -- what led to the message: own-header, verp, feedback-id, ...
    own_id           TEXT NOT NULL,
    feedback_id      TEXT NOT NULL,
    message_id       TEXT NOT NULL,
    queue_id         TEXT NOT NULL,
    incidents        INTEGER NOT NULL,
    status           TEXT NOT NULL,          -- of a bounce, as are the following
    reply            TEXT NOT NULL,
    rule             TEXT NOT NULL,
    category         TEXT NOT NULL,
    detail           TEXT NOT NULL,
    bounce           TEXT NOT NULL           -- hard, soft, block, transient
) STRICT;

CREATE INDEX report_event_by_time ON report_event (time, kind);
CREATE INDEX report_event_by_recipient ON report_event (recipient) WHERE recipient != '';

CREATE TABLE dmarc_report (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    organization TEXT NOT NULL,
    report_id    TEXT NOT NULL,
    domain       TEXT NOT NULL,
    begin        REAL NOT NULL,
    end          REAL NOT NULL,
    rfc          TEXT NOT NULL,      -- 7489, 9990
    policy       TEXT NOT NULL,      -- as published, JSON
    time         REAL NOT NULL,
    trusted      INTEGER NOT NULL,
    reporter     TEXT NOT NULL,
    unreadable   INTEGER NOT NULL,   -- records left out
    UNIQUE (organization, report_id, domain, begin)
) STRICT;

CREATE INDEX dmarc_report_by_end ON dmarc_report (end);

CREATE TABLE dmarc_row (
    report       INTEGER NOT NULL,
    number       INTEGER NOT NULL,
    source_ip    TEXT NOT NULL,
    messages     INTEGER NOT NULL,
    disposition  TEXT NOT NULL,
    dkim         TEXT NOT NULL,      -- aligned: pass, fail, unknown
    spf          TEXT NOT NULL,
    header_from  TEXT NOT NULL,
    envelope_from TEXT NOT NULL,
    results      TEXT NOT NULL,      -- {"dkim": [[domain, selector, result]], "spf": [[domain, scope, result]]}
    reasons      TEXT NOT NULL,      -- [[type, comment]]
    PRIMARY KEY (report, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE tls_report (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    organization TEXT NOT NULL,
    report_id    TEXT NOT NULL,
    begin        REAL NOT NULL,
    end          REAL NOT NULL,
    time         REAL NOT NULL,
    trusted      INTEGER NOT NULL,
    reporter     TEXT NOT NULL,
    UNIQUE (organization, report_id, begin)
) STRICT;

-- A policy's sum (result_type ''), and each kind of failure under it.
CREATE TABLE tls_row (
    report       INTEGER NOT NULL,
    number       INTEGER NOT NULL,
    domain       TEXT NOT NULL,
    policy_type  TEXT NOT NULL,
    result_type  TEXT NOT NULL,
    successes    INTEGER NOT NULL,
    failures     INTEGER NOT NULL,
    receiving_mx TEXT NOT NULL,
    receiving_ip TEXT NOT NULL,
    sending_ip   TEXT NOT NULL,
    reason       TEXT NOT NULL,
    PRIMARY KEY (report, number)
) STRICT, WITHOUT ROWID;
