-- Which page of the fleet an incident of this host belongs to: it stays there for as long as it lasts, also over a restart.
CREATE TABLE fleet_page_of (
    incident INTEGER PRIMARY KEY,
    page     TEXT NOT NULL      -- the dedup key of the incident that began it, perhaps on another host
) STRICT;
