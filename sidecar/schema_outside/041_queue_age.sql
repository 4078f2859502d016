-- Messages that are older than an hour, of those in the queue.

ALTER TABLE queue_sample ADD COLUMN old INTEGER NOT NULL DEFAULT 0;
