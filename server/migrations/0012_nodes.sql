-- The processes that serve this database, and what one of them does alone. See 0001_first.sql for the placeholders.

CREATE TABLE nodes (
    name {text} PRIMARY KEY,
    -- Random, made at each start.
    run {int} NOT NULL,
    -- Counts on while the run lives. What moves it is the node's own clock, and who watches it goes by his.
    beat {int} NOT NULL,
    -- Where clients reach it, and near what it stands.
    address {text},
    zone {text},
    load {int} NOT NULL,
    version {text} NOT NULL,
    -- 1 for a node that is about to stop.
    draining {int} NOT NULL
){plain};

CREATE TABLE leases (
    name {text} PRIMARY KEY,
    -- Who holds it; nobody where it was given back.
    run {int},
    -- One more each time that it is taken: whoever holds an older number holds nothing.
    fencing {int} NOT NULL
){plain};
