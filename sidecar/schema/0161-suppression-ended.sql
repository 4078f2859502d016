-- Who was taken off, and when: asked for each row of a copy of another host's list.
CREATE INDEX suppression_ended ON suppression (who) WHERE ended_at > 0;
