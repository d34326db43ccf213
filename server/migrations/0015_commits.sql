-- What each commit put into the log, for whoever follows it: readers, and other nodes on the same database.
CREATE TABLE commits (
    -- The position of its last record.
    position {int} PRIMARY KEY,
    -- The first position that it took: one more than the position of the commit before.
    first {int} NOT NULL,
    -- Random, so that a process whose connection broke can ask whether its commit has happened.
    commit_id {int} NOT NULL,
    -- Milliseconds since 1970, by the clock of the process that wrote it.
    committed_at {int} NOT NULL,
    -- Its records in order, as CBOR: see store/log/journal.rs.
    entries {blob} NOT NULL
){plain};

-- The position at which the head was last moved: of two heads of a room, the later is the newer.
ALTER TABLE room_heads ADD COLUMN position {int} NOT NULL DEFAULT 0;

-- How often a process has taken a block of local numbers.
ALTER TABLE log ADD COLUMN number_blocks {int} NOT NULL DEFAULT 0;
