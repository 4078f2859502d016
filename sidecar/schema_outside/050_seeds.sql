-- Test mail to mailboxes of ours: where each landed. Written before it is sent, so that what was interrupted is found.

CREATE TABLE seed_mail (
    tag        TEXT PRIMARY KEY,   -- in its header
    address    TEXT NOT NULL,
    provider   TEXT NOT NULL,
    transport  TEXT NOT NULL,      -- '': Postfix chose
    sent_at    REAL NOT NULL,      -- seconds since the epoch, UTC
    place      TEXT NOT NULL CHECK (place IN ('waiting', 'inbox', 'spam', 'elsewhere', 'missing', 'unsent', 'unseen')),
    folder     TEXT NOT NULL,
    arrived_at REAL NOT NULL,      -- by the clock of the mailbox; 0: not yet
    looked_at  REAL NOT NULL,
    removed    INTEGER NOT NULL,   -- 1: we took it out of the mailbox again, or marked it as deleted
    why        TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX seed_mail_by_time ON seed_mail (sent_at);
