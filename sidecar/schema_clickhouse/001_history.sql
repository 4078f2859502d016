-- History of a fleet. Understood by every server since 18.16: no table TTL, no LowCardinality, no skipping indices.
-- Each statement may be run again: hosts that start together all run them.
-- `store`: which core's store a row comes from, and `id` its number there; the two name an event for good.

-- As `attempt` of core; rows that came twice are one after a merge.
CREATE TABLE IF NOT EXISTS attempt (
    day              Date,      -- of UTC; what is dropped by age
    store            String,
    id               UInt64,
    time             Float64,   -- of the log line, seconds since the epoch, UTC
    host             String,
    instance         String,
    queue_id         String,
    sender_domain    String,
    recipient_domain String,
    provider         String,
    relay            String,
    dsn              String,
    status           String,
    rule             String,
    detail           String,
    bounce           String,
    scope            String,
    delay            Float64,
    key              String,
    recipient        String,
    service          String,
    tenant           String,
    campaign         String,
    segment          String,
    reply            String,
    passed_on        String,
    first            Int64
) ENGINE = ReplacingMergeTree() PARTITION BY day ORDER BY (store, id);

-- As `message` of core; the row that knows when it left the queue takes the place of the one that does not.
CREATE TABLE IF NOT EXISTS message (
    day        Date,
    store      String,
    id         UInt64,
    time       Float64,
    host       String,
    instance   String,
    queue_id   String,
    message_id String,
    sender     String,
    size       Int64,
    nrcpt      Int64,
    client     String,
    tenant     String,
    removed    Float64
) ENGINE = ReplacingMergeTree(removed) PARTITION BY day ORDER BY (store, id);

-- As `change` of core, with `change_message` as (instance, queue id) in two lists.
CREATE TABLE IF NOT EXISTS change (
    day       Date,
    store     String,
    id        UInt64,
    time      Float64,
    key       String,
    kind      String,
    state     String,
    why       String,
    line      String,
    rule      String,
    by_whom   String,
    messages  Int64,
    instances Array(String),
    queue_ids Array(String)
) ENGINE = ReplacingMergeTree() PARTITION BY day ORDER BY (store, id);

-- Where a queue id, an address or a Message-ID occurs.
CREATE TABLE IF NOT EXISTS named (
    day      Date,
    word     String,
    kind     String,   -- queue_id, recipient, passed_on of an attempt; queue_id, sender, message_id of a message
    store    String,
    id       UInt64,
    time     Float64
) ENGINE = ReplacingMergeTree() PARTITION BY day ORDER BY (word, kind, store, id);

CREATE MATERIALIZED VIEW IF NOT EXISTS named_of_attempt TO named AS
SELECT day, name.2 AS word, name.1 AS kind, store, id, time
FROM attempt
ARRAY JOIN arrayFilter(each -> each.2 NOT IN ('', '-'), [('attempt', queue_id), ('recipient', recipient), ('passed_on', passed_on)]) AS name;

CREATE MATERIALIZED VIEW IF NOT EXISTS named_of_message TO named AS
SELECT day, name.2 AS word, name.1 AS kind, store, id, time
FROM message
ARRAY JOIN arrayFilter(each -> each.2 != '', [('message', queue_id), ('sender', sender), ('message_id', message_id)]) AS name;

-- Sums, as policies/rollup.py makes them, but that every value has a name. `ids` proves against `attempt` that nothing
-- is missing and nothing is counted twice.
CREATE TABLE IF NOT EXISTS hourly (
    day            Date,
    begin          Int64,   -- seconds since the epoch, UTC
    provider       String,
    sending_domain String,
    transport      String,
    host           String,
    tenant         String,
    campaign       String,
    segment        String,
    rule           String,
    detail         String,
    bounce         String,
    status         String,
    store          String,
    messages Int64, attempts Int64, sent Int64, deferred Int64, bounced Int64, hard Int64, block Int64, expired Int64,
    within_0 Int64, within_1 Int64, within_2 Int64, within_3 Int64, within_4 Int64, within_5 Int64, within_6 Int64, within_7 Int64,
    within_8 Int64, within_9 Int64, within_10 Int64, within_11 Int64, within_12 Int64, within_13 Int64, within_14 Int64, within_15 Int64,
    ids Int64
) ENGINE = SummingMergeTree() PARTITION BY day
ORDER BY (begin, provider, sending_domain, transport, host, tenant, campaign, segment, rule, detail, bounce, status, store);

CREATE MATERIALIZED VIEW IF NOT EXISTS hourly_of_attempt TO hourly AS
SELECT day, toInt64(floor(time / 3600)) * 3600 AS begin,
    substringUTF8(provider, 1, 100) AS provider,
    substringUTF8(sender_domain, 1, 100) AS sending_domain,
    substringUTF8(service, 1, 100) AS transport,
    substringUTF8(host, 1, 100) AS host,
    substringUTF8(tenant, 1, 100) AS tenant,
    substringUTF8(campaign, 1, 100) AS campaign,
    substringUTF8(segment, 1, 100) AS segment,
    if(status = 'sent', '', rule) AS rule,
    if(status = 'sent', '', detail) AS detail,
    if(status = 'sent', '', bounce) AS bounce,
    status, store,
    toInt64(countIf(first = 1 AND status != 'expired')) AS messages,
    toInt64(countIf(status != 'expired')) AS attempts,
    toInt64(countIf(status = 'sent')) AS sent,
    toInt64(countIf(status IN ('deferred', 'SOFTBOUNCE'))) AS deferred,
    toInt64(countIf(status = 'bounced')) AS bounced,
    toInt64(countIf(status = 'bounced' AND bounce = 'hard')) AS hard,
    toInt64(countIf(status = 'bounced' AND bounce = 'block')) AS block,
    toInt64(countIf(status = 'expired')) AS expired,
    toInt64(countIf(status = 'sent' AND delay <= 0.5)) AS within_0,
    toInt64(countIf(status = 'sent' AND delay > 0.5 AND delay <= 1)) AS within_1,
    toInt64(countIf(status = 'sent' AND delay > 1 AND delay <= 2)) AS within_2,
    toInt64(countIf(status = 'sent' AND delay > 2 AND delay <= 5)) AS within_3,
    toInt64(countIf(status = 'sent' AND delay > 5 AND delay <= 10)) AS within_4,
    toInt64(countIf(status = 'sent' AND delay > 10 AND delay <= 30)) AS within_5,
    toInt64(countIf(status = 'sent' AND delay > 30 AND delay <= 60)) AS within_6,
    toInt64(countIf(status = 'sent' AND delay > 60 AND delay <= 120)) AS within_7,
    toInt64(countIf(status = 'sent' AND delay > 120 AND delay <= 300)) AS within_8,
    toInt64(countIf(status = 'sent' AND delay > 300 AND delay <= 900)) AS within_9,
    toInt64(countIf(status = 'sent' AND delay > 900 AND delay <= 1800)) AS within_10,
    toInt64(countIf(status = 'sent' AND delay > 1800 AND delay <= 3600)) AS within_11,
    toInt64(countIf(status = 'sent' AND delay > 3600 AND delay <= 14400)) AS within_12,
    toInt64(countIf(status = 'sent' AND delay > 14400 AND delay <= 43200)) AS within_13,
    toInt64(countIf(status = 'sent' AND delay > 43200 AND delay <= 86400)) AS within_14,
    toInt64(countIf(status = 'sent' AND delay > 86400)) AS within_15,
    toInt64(sum(id)) AS ids
FROM attempt WHERE passed_on = ''
GROUP BY day, begin, provider, sending_domain, transport, host, tenant, campaign, segment, rule, detail, bounce, status, store;

CREATE TABLE IF NOT EXISTS daily (
    day            Date,
    begin          Int64,   -- seconds since the epoch, UTC
    provider       String,
    sending_domain String,
    transport      String,
    host           String,
    tenant         String,
    campaign       String,
    segment        String,
    rule           String,
    detail         String,
    bounce         String,
    status         String,
    store          String,
    messages Int64, attempts Int64, sent Int64, deferred Int64, bounced Int64, hard Int64, block Int64, expired Int64,
    within_0 Int64, within_1 Int64, within_2 Int64, within_3 Int64, within_4 Int64, within_5 Int64, within_6 Int64, within_7 Int64,
    within_8 Int64, within_9 Int64, within_10 Int64, within_11 Int64, within_12 Int64, within_13 Int64, within_14 Int64, within_15 Int64,
    ids Int64
) ENGINE = SummingMergeTree() PARTITION BY toYYYYMM(day)
ORDER BY (begin, provider, sending_domain, transport, host, tenant, campaign, segment, rule, detail, bounce, status, store);

CREATE MATERIALIZED VIEW IF NOT EXISTS daily_of_attempt TO daily AS
SELECT day, toInt64(floor(time / 86400)) * 86400 AS begin,
    substringUTF8(provider, 1, 100) AS provider,
    substringUTF8(sender_domain, 1, 100) AS sending_domain,
    substringUTF8(service, 1, 100) AS transport,
    substringUTF8(host, 1, 100) AS host,
    substringUTF8(tenant, 1, 100) AS tenant,
    substringUTF8(campaign, 1, 100) AS campaign,
    substringUTF8(segment, 1, 100) AS segment,
    if(status = 'sent', '', rule) AS rule,
    if(status = 'sent', '', detail) AS detail,
    if(status = 'sent', '', bounce) AS bounce,
    status, store,
    toInt64(countIf(first = 1 AND status != 'expired')) AS messages,
    toInt64(countIf(status != 'expired')) AS attempts,
    toInt64(countIf(status = 'sent')) AS sent,
    toInt64(countIf(status IN ('deferred', 'SOFTBOUNCE'))) AS deferred,
    toInt64(countIf(status = 'bounced')) AS bounced,
    toInt64(countIf(status = 'bounced' AND bounce = 'hard')) AS hard,
    toInt64(countIf(status = 'bounced' AND bounce = 'block')) AS block,
    toInt64(countIf(status = 'expired')) AS expired,
    toInt64(countIf(status = 'sent' AND delay <= 0.5)) AS within_0,
    toInt64(countIf(status = 'sent' AND delay > 0.5 AND delay <= 1)) AS within_1,
    toInt64(countIf(status = 'sent' AND delay > 1 AND delay <= 2)) AS within_2,
    toInt64(countIf(status = 'sent' AND delay > 2 AND delay <= 5)) AS within_3,
    toInt64(countIf(status = 'sent' AND delay > 5 AND delay <= 10)) AS within_4,
    toInt64(countIf(status = 'sent' AND delay > 10 AND delay <= 30)) AS within_5,
    toInt64(countIf(status = 'sent' AND delay > 30 AND delay <= 60)) AS within_6,
    toInt64(countIf(status = 'sent' AND delay > 60 AND delay <= 120)) AS within_7,
    toInt64(countIf(status = 'sent' AND delay > 120 AND delay <= 300)) AS within_8,
    toInt64(countIf(status = 'sent' AND delay > 300 AND delay <= 900)) AS within_9,
    toInt64(countIf(status = 'sent' AND delay > 900 AND delay <= 1800)) AS within_10,
    toInt64(countIf(status = 'sent' AND delay > 1800 AND delay <= 3600)) AS within_11,
    toInt64(countIf(status = 'sent' AND delay > 3600 AND delay <= 14400)) AS within_12,
    toInt64(countIf(status = 'sent' AND delay > 14400 AND delay <= 43200)) AS within_13,
    toInt64(countIf(status = 'sent' AND delay > 43200 AND delay <= 86400)) AS within_14,
    toInt64(countIf(status = 'sent' AND delay > 86400)) AS within_15,
    toInt64(sum(id)) AS ids
FROM attempt WHERE passed_on = ''
GROUP BY day, begin, provider, sending_domain, transport, host, tenant, campaign, segment, rule, detail, bounce, status, store;
