-- What follows the log by itself, and how far it has come. See 0001_first.sql for the placeholders.

CREATE TABLE readers (
    name {text} NOT NULL,
    shard {int} NOT NULL,
    -- Everything up to here is dealt with.
    position {int} NOT NULL,
    paused {int} NOT NULL,
    -- In a row, until now.
    failures {int} NOT NULL,
    last_error {text},
    -- Records dealt with so far.
    records {int} NOT NULL,
    updated_at {int} NOT NULL,
    PRIMARY KEY (name, shard)
){clustered};

-- Records that a reader could not deal with and went past.
CREATE TABLE readers_set_aside (
    name {text} NOT NULL,
    shard {int} NOT NULL,
    position {int} NOT NULL,
    -- What stands at the position.
    records {text} NOT NULL,
    why {text} NOT NULL,
    set_aside_at {int} NOT NULL,
    PRIMARY KEY (name, shard, position)
){clustered};
