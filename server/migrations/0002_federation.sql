-- Rooms shared with other homeservers. See 0001_first.sql for the placeholders.

-- 1 for an event that this server made: what its log sends to peers.
ALTER TABLE events ADD COLUMN own {int} NOT NULL DEFAULT 1;
CREATE INDEX events_own ON events (room, position) WHERE own = 1;

-- Server records: who a server is and which keys it signs with. Old ones stay, so that its history stays verifiable.
CREATE TABLE server_records (
    server_name {text} NOT NULL,
    sequence {int} NOT NULL,
    -- The signed record as it came.
    record {blob} NOT NULL,
    PRIMARY KEY (server_name, sequence)
){clustered};

-- How far this server has durably received the log of each peer.
CREATE TABLE peers (
    server_name {text} PRIMARY KEY,
    log_id {blob} NOT NULL,
    -- Opaque: the peer's own cursor.
    cursor {blob} NOT NULL
){plain};

-- Which peer is sent which events of a room: those from one position to another, or to whatever comes.
CREATE TABLE interests (
    server_name {text} NOT NULL,
    room {int} NOT NULL,
    from_position {int} NOT NULL,
    to_position {int},
    PRIMARY KEY (server_name, room, from_position)
){clustered};
CREATE INDEX interests_open ON interests (room, server_name) WHERE to_position IS NULL;

-- Received and not yet ingested: acknowledged, so it must not be lost.
CREATE TABLE inbox (
    nid {int} PRIMARY KEY,
    server_name {text} NOT NULL,
    room_id {text} NOT NULL,
    json {text} NOT NULL,
    -- Milliseconds since 1970.
    received_at {int} NOT NULL
){plain};
CREATE INDEX inbox_by_room ON inbox (room_id, nid);
