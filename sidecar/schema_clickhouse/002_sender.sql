-- Which host sends under which name, so that two that share one are noticed.
CREATE TABLE IF NOT EXISTS sender (
    name  String,     -- clickhouse.name
    host  String,     -- the host itself: its name and machine id
    begun Float64,    -- when its process began to send, by the server's clock
    seen  Float64     -- when it sent last
) ENGINE = ReplacingMergeTree(seen) ORDER BY (name, host);
