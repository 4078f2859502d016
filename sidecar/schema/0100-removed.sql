-- Which messages left the queue lately: for whoever sends the history on. Times of removal grow, so this costs an append.

CREATE INDEX message_by_removed ON message (removed) WHERE removed > 0;
