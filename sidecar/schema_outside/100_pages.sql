-- What a fleet tells people of its incidents, once for all hosts.

-- Of notes that the fleet says once: the dedup key of the incident, and whether the fleet knows what became of the note.
ALTER TABLE outbox ADD COLUMN page TEXT NOT NULL DEFAULT '';
ALTER TABLE outbox ADD COLUMN page_known INTEGER NOT NULL DEFAULT 0;
CREATE INDEX outbox_by_page ON outbox (page) WHERE page != '' AND page_known = 0;

-- This host's copy of what the fleet's store has of an incident, for when that is away or has forgotten.
CREATE TABLE fleet_page (
    key  TEXT PRIMARY KEY,
    body TEXT NOT NULL      -- JSON
) STRICT, WITHOUT ROWID;
