-- Which delivered messages were in which arm of a canary: complaints come days later, and name the message or the person.

CREATE TABLE canary_message (
    canary        TEXT NOT NULL,
    queue_id      TEXT NOT NULL,
    recipient     TEXT NOT NULL,      -- SHA-256 of the address in small letters, '' where the site keeps none
    sender_domain TEXT NOT NULL,
    arm           TEXT NOT NULL,      -- canary or control
    at            REAL NOT NULL,      -- when it was delivered
    complained    INTEGER NOT NULL,   -- 1: somebody complained about it, which counts once
    PRIMARY KEY (canary, queue_id, recipient)
) STRICT, WITHOUT ROWID;

CREATE INDEX canary_message_by_recipient ON canary_message (recipient, at);
CREATE INDEX canary_message_by_queue_id ON canary_message (queue_id);
