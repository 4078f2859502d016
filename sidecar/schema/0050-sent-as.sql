-- How mail presented itself in the last day, by the hour; rows are added up as the log is read.

CREATE TABLE sent_as (
    hour          INTEGER NOT NULL,   -- since the epoch, UTC
    sender_domain TEXT NOT NULL,      -- of the envelope sender
    from_domain   TEXT NOT NULL,      -- of the header From, '' unknown
    signed_by     TEXT NOT NULL,      -- DKIM d=, sorted, blanks between; '' where no signature was seen
    messages      INTEGER NOT NULL,
    mailings      INTEGER NOT NULL,   -- with List-Unsubscribe or List-Id
    one_click     INTEGER NOT NULL,   -- of those, with https and List-Unsubscribe-Post
    PRIMARY KEY (hour, sender_domain, from_domain, signed_by)
) STRICT, WITHOUT ROWID;

-- Keys whose mail is held because their authentication is broken, and who would rather have it sent all the same.
CREATE TABLE broken_authentication (
    key       TEXT PRIMARY KEY,       -- TYPE:VALUE@*
    rule      TEXT NOT NULL,
    evidence  TEXT NOT NULL,
    since     REAL NOT NULL,
    let_go_by TEXT NOT NULL           -- '' while it is held
) STRICT, WITHOUT ROWID;
