-- History: what became of the mail, by the hour and by the day (UTC), and what one message lived through.

ALTER TABLE attempt ADD COLUMN recipient TEXT NOT NULL DEFAULT '';   -- as store.addresses says
ALTER TABLE attempt ADD COLUMN service   TEXT NOT NULL DEFAULT '';   -- the transport as logged, else the agent
ALTER TABLE attempt ADD COLUMN tenant    TEXT NOT NULL DEFAULT '';   -- sasl_username
ALTER TABLE attempt ADD COLUMN campaign  TEXT NOT NULL DEFAULT '';
ALTER TABLE attempt ADD COLUMN segment   TEXT NOT NULL DEFAULT '';
ALTER TABLE attempt ADD COLUMN reply     TEXT NOT NULL DEFAULT '';
ALTER TABLE attempt ADD COLUMN passed_on TEXT NOT NULL DEFAULT '';   -- next queue id in this host, '-' if not said
ALTER TABLE attempt ADD COLUMN first     INTEGER NOT NULL DEFAULT 0; -- 1: its message had none before

CREATE INDEX attempt_by_queue_id ON attempt (queue_id);
CREATE INDEX attempt_by_recipient ON attempt (recipient) WHERE recipient != '';
CREATE INDEX attempt_by_passed_on ON attempt (passed_on) WHERE passed_on NOT IN ('', '-');

-- One row for each message that was seen to enter the queue.
CREATE TABLE message (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    time       REAL NOT NULL,      -- when the queue manager first had it
    host       TEXT NOT NULL,
    instance   TEXT NOT NULL,
    queue_id   TEXT NOT NULL,
    message_id TEXT NOT NULL,
    sender     TEXT NOT NULL,      -- as store.addresses says; '' is the null sender too
    size       INTEGER NOT NULL,
    nrcpt      INTEGER NOT NULL,
    client     TEXT NOT NULL,
    tenant     TEXT NOT NULL,
    removed    REAL NOT NULL DEFAULT 0   -- when it left the queue; 0: not yet, as far as is known
) STRICT;

CREATE INDEX message_by_time ON message (time);
CREATE INDEX message_by_queue_id ON message (queue_id);
CREATE INDEX message_by_message_id ON message (message_id) WHERE message_id != '';
CREATE INDEX message_by_sender ON message (sender) WHERE sender != '';

-- What mail has in common that is summed up; '' where it is not known, '(other)' where it is not told apart.
CREATE TABLE flow (
    id             INTEGER PRIMARY KEY,
    provider       TEXT NOT NULL,
    sending_domain TEXT NOT NULL,
    transport      TEXT NOT NULL,
    host           TEXT NOT NULL,
    tenant         TEXT NOT NULL,
    campaign       TEXT NOT NULL,
    segment        TEXT NOT NULL,
    last_day       INTEGER NOT NULL,   -- begin of the last day with a row of it
    UNIQUE (provider, sending_domain, transport, host, tenant, campaign, segment)
) STRICT;

-- What attempts that were not accepted have in common.
CREATE TABLE refusal (
    id     INTEGER PRIMARY KEY,
    rule   TEXT NOT NULL,
    detail TEXT NOT NULL,
    bounce TEXT NOT NULL,
    status TEXT NOT NULL,
    UNIQUE (rule, detail, bounce, status)
) STRICT;

-- Sums; within_N: deliveries by their time, in the buckets of policies/time_to_delivery.py.
CREATE TABLE hourly (
    begin INTEGER NOT NULL,   -- seconds since the epoch, UTC
    flow  INTEGER NOT NULL,
    messages INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    sent INTEGER NOT NULL,
    deferred INTEGER NOT NULL,
    bounced INTEGER NOT NULL,
    hard INTEGER NOT NULL,
    block INTEGER NOT NULL,
    expired INTEGER NOT NULL,
    within_0 INTEGER NOT NULL, within_1 INTEGER NOT NULL, within_2 INTEGER NOT NULL, within_3 INTEGER NOT NULL, within_4 INTEGER NOT NULL, within_5 INTEGER NOT NULL, within_6 INTEGER NOT NULL, within_7 INTEGER NOT NULL,
    within_8 INTEGER NOT NULL, within_9 INTEGER NOT NULL, within_10 INTEGER NOT NULL, within_11 INTEGER NOT NULL, within_12 INTEGER NOT NULL, within_13 INTEGER NOT NULL, within_14 INTEGER NOT NULL, within_15 INTEGER NOT NULL,
    PRIMARY KEY (begin, flow)
) STRICT, WITHOUT ROWID;

-- The same by one dimension alone ('all': of all mail, its value ''), which most reports ask for.
CREATE TABLE hourly_value (
    dimension TEXT NOT NULL,
    begin     INTEGER NOT NULL,
    value     TEXT NOT NULL,
    messages INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    sent INTEGER NOT NULL,
    deferred INTEGER NOT NULL,
    bounced INTEGER NOT NULL,
    hard INTEGER NOT NULL,
    block INTEGER NOT NULL,
    expired INTEGER NOT NULL,
    within_0 INTEGER NOT NULL, within_1 INTEGER NOT NULL, within_2 INTEGER NOT NULL, within_3 INTEGER NOT NULL, within_4 INTEGER NOT NULL, within_5 INTEGER NOT NULL, within_6 INTEGER NOT NULL, within_7 INTEGER NOT NULL,
    within_8 INTEGER NOT NULL, within_9 INTEGER NOT NULL, within_10 INTEGER NOT NULL, within_11 INTEGER NOT NULL, within_12 INTEGER NOT NULL, within_13 INTEGER NOT NULL, within_14 INTEGER NOT NULL, within_15 INTEGER NOT NULL,
    PRIMARY KEY (dimension, begin, value)
) STRICT, WITHOUT ROWID;

CREATE TABLE hourly_refusal (
    begin    INTEGER NOT NULL,
    flow     INTEGER NOT NULL,
    refusal  INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    PRIMARY KEY (begin, flow, refusal)
) STRICT, WITHOUT ROWID;

CREATE TABLE daily (
    begin INTEGER NOT NULL,   -- seconds since the epoch, UTC
    flow  INTEGER NOT NULL,
    messages INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    sent INTEGER NOT NULL,
    deferred INTEGER NOT NULL,
    bounced INTEGER NOT NULL,
    hard INTEGER NOT NULL,
    block INTEGER NOT NULL,
    expired INTEGER NOT NULL,
    within_0 INTEGER NOT NULL, within_1 INTEGER NOT NULL, within_2 INTEGER NOT NULL, within_3 INTEGER NOT NULL, within_4 INTEGER NOT NULL, within_5 INTEGER NOT NULL, within_6 INTEGER NOT NULL, within_7 INTEGER NOT NULL,
    within_8 INTEGER NOT NULL, within_9 INTEGER NOT NULL, within_10 INTEGER NOT NULL, within_11 INTEGER NOT NULL, within_12 INTEGER NOT NULL, within_13 INTEGER NOT NULL, within_14 INTEGER NOT NULL, within_15 INTEGER NOT NULL,
    PRIMARY KEY (begin, flow)
) STRICT, WITHOUT ROWID;

CREATE TABLE daily_value (
    dimension TEXT NOT NULL,
    begin     INTEGER NOT NULL,
    value     TEXT NOT NULL,
    messages INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    sent INTEGER NOT NULL,
    deferred INTEGER NOT NULL,
    bounced INTEGER NOT NULL,
    hard INTEGER NOT NULL,
    block INTEGER NOT NULL,
    expired INTEGER NOT NULL,
    within_0 INTEGER NOT NULL, within_1 INTEGER NOT NULL, within_2 INTEGER NOT NULL, within_3 INTEGER NOT NULL, within_4 INTEGER NOT NULL, within_5 INTEGER NOT NULL, within_6 INTEGER NOT NULL, within_7 INTEGER NOT NULL,
    within_8 INTEGER NOT NULL, within_9 INTEGER NOT NULL, within_10 INTEGER NOT NULL, within_11 INTEGER NOT NULL, within_12 INTEGER NOT NULL, within_13 INTEGER NOT NULL, within_14 INTEGER NOT NULL, within_15 INTEGER NOT NULL,
    PRIMARY KEY (dimension, begin, value)
) STRICT, WITHOUT ROWID;

CREATE TABLE daily_refusal (
    begin    INTEGER NOT NULL,
    flow     INTEGER NOT NULL,
    refusal  INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    PRIMARY KEY (begin, flow, refusal)
) STRICT, WITHOUT ROWID;
