-- The audit: `change` and the messages that it was about. Rows are added, and go by age alone.

CREATE TABLE change_message (
    change   INTEGER NOT NULL,   -- id in `change`
    instance TEXT NOT NULL,
    queue_id TEXT NOT NULL,
    PRIMARY KEY (change, instance, queue_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX change_message_by_queue_id ON change_message (queue_id);

-- What is older may be deleted; it cannot be moved into the last day, nor back.
CREATE TABLE audit_retention (
    one       INTEGER PRIMARY KEY CHECK (one = 1),
    kept_from REAL NOT NULL
) STRICT;

INSERT INTO audit_retention VALUES (1, 0.0);

CREATE TRIGGER audit_retention_stays BEFORE DELETE ON audit_retention
BEGIN SELECT RAISE(ABORT, 'the audit is append-only: its retention has one row'); END;

CREATE TRIGGER audit_retention_is_one BEFORE INSERT ON audit_retention
BEGIN SELECT RAISE(ABORT, 'the audit is append-only: its retention has one row'); END;

CREATE TRIGGER audit_retention_spares_a_day BEFORE UPDATE ON audit_retention
WHEN NEW.kept_from < OLD.kept_from OR NEW.kept_from > CAST(strftime('%s', 'now') AS REAL) - 86400.0
BEGIN SELECT RAISE(ABORT, 'the audit is append-only: nothing of the last day is deleted'); END;

CREATE TRIGGER change_is_not_deleted BEFORE DELETE ON change
WHEN OLD.time >= (SELECT kept_from FROM audit_retention)
BEGIN SELECT RAISE(ABORT, 'the audit is append-only: rows go by age alone'); END;

-- INSERT OR REPLACE would delete without the trigger above.
CREATE TRIGGER change_is_not_replaced BEFORE INSERT ON change
WHEN EXISTS (SELECT 1 FROM change WHERE id = NEW.id)
BEGIN SELECT RAISE(ABORT, 'the audit is append-only: that id is taken'); END;

-- `suppress erase` may take a person's address out of a text; nothing else changes.
CREATE TRIGGER change_is_not_rewritten BEFORE UPDATE ON change
WHEN NEW.id IS NOT OLD.id OR NEW.time IS NOT OLD.time OR NEW.kind IS NOT OLD.kind OR NEW.state IS NOT OLD.state
    OR NEW.rule IS NOT OLD.rule OR NEW.messages IS NOT OLD.messages
    OR (NEW.key IS NOT OLD.key AND instr(NEW.key, '[erased]') = 0)
    OR (NEW.why IS NOT OLD.why AND instr(NEW.why, '[erased]') = 0)
    OR (NEW.line IS NOT OLD.line AND instr(NEW.line, '[erased]') = 0)
    OR (NEW.by_whom IS NOT OLD.by_whom AND instr(NEW.by_whom, '[erased]') = 0)
BEGIN SELECT RAISE(ABORT, 'the audit is append-only: rows are not changed'); END;

CREATE TRIGGER change_message_is_not_deleted BEFORE DELETE ON change_message
WHEN EXISTS (SELECT 1 FROM change WHERE id = OLD.change AND time >= (SELECT kept_from FROM audit_retention))
BEGIN SELECT RAISE(ABORT, 'the audit is append-only: rows go by age alone'); END;

CREATE TRIGGER change_message_is_not_rewritten BEFORE UPDATE ON change_message
BEGIN SELECT RAISE(ABORT, 'the audit is append-only: rows are not changed'); END;
