-- The story of one sub-queue is asked for by its key, in a month of changes of thousands of them.

CREATE INDEX change_by_key ON change (key, id);
