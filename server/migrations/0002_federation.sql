-- Rooms shared with other homeservers. See 0001_first.sql for the placeholders.

-- 1 for an event that this server made: what its log sends to peers.
ALTER TABLE events ADD COLUMN own {int} NOT NULL DEFAULT 1;
CREATE INDEX events_own ON events (room, position) WHERE own = 1;

-- Server records: who a server is and which keys it signs with. Old ones stay, so that its history stays verifiable.
CREATE TABLE server_records (
    server_name {text} NOT NULL,
    -- A domain may come to have another one, whose numbers begin anew.
    root_key {blob} NOT NULL,
    sequence {int} NOT NULL,
    -- The signed record as it came.
    record {blob} NOT NULL,
    PRIMARY KEY (server_name, root_key, sequence)
){clustered};

-- Root keys of domains, as their web servers published them or the admin accepted them. The configuration wins.
CREATE TABLE root_keys (
    server_name {text} PRIMARY KEY,
    root_key {blob} NOT NULL
){plain};

-- Peers that the admin added to a running server, beside those of the configuration.
CREATE TABLE added_peers (
    server_name {text} PRIMARY KEY,
    -- Where to dial it, the best first, a space between.
    addresses {text} NOT NULL
){plain};

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

-- Redactions that came before what they redact.
CREATE TABLE early_redactions (
    target {text} NOT NULL,
    redaction {text} NOT NULL,
    room {int} NOT NULL,
    sender {text} NOT NULL,
    PRIMARY KEY (target, redaction)
){clustered};

-- Where events are missing from a room's timeline: before the event at this place.
CREATE TABLE gaps (
    room {int} NOT NULL,
    place {int} NOT NULL,
    -- JSON array of the event ids that are missing right before it.
    missing {text} NOT NULL,
    PRIMARY KEY (room, place)
){clustered};

-- Received and not yet ingested: acknowledged, so it must not be lost.
CREATE TABLE inbox (
    nid {int} PRIMARY KEY,
    server_name {text} NOT NULL,
    room_id {text} NOT NULL,
    json {text} NOT NULL,
    -- Length of the JSON.
    bytes {int} NOT NULL,
    -- Milliseconds since 1970.
    received_at {int} NOT NULL
){plain};
-- Servers take turns within a room, and so much is taken at a time, from the index alone.
CREATE INDEX inbox_by_room ON inbox (room_id, server_name, nid, bytes);
-- How much waits of each server, from the index alone.
CREATE INDEX inbox_by_server ON inbox (server_name, bytes);

-- 1 for what a user of this server did: what peers are told of.
ALTER TABLE receipts ADD COLUMN own {int} NOT NULL DEFAULT 1;
CREATE INDEX receipts_own ON receipts (room, position) WHERE own = 1 AND type = 'm.read';
ALTER TABLE device_lists ADD COLUMN own {int} NOT NULL DEFAULT 1;
CREATE INDEX device_lists_own ON device_lists (position) WHERE own = 1;

-- Messages to devices of other servers, until the peer has acknowledged them.
CREATE TABLE peer_messages (
    server_name {text} NOT NULL,
    position {int} NOT NULL,
    message_id {text} NOT NULL,
    sender {text} NOT NULL,
    user_id {text} NOT NULL,
    -- A device's id, or * for all.
    device_id {text} NOT NULL,
    type {text} NOT NULL,
    content {text} NOT NULL,
    -- Milliseconds since 1970; old ones are dropped.
    sent_at {int} NOT NULL,
    PRIMARY KEY (server_name, position)
){clustered};
CREATE INDEX peer_messages_by_age ON peer_messages (sent_at);

-- How much of peer_messages waits for each peer.
CREATE TABLE peer_queues (
    server_name {text} PRIMARY KEY,
    messages {int} NOT NULL,
    bytes {int} NOT NULL
){plain};

-- Messages of peers that this server has passed on, so that none is passed on twice.
CREATE TABLE heard_messages (
    server_name {text} NOT NULL,
    message_id {text} NOT NULL,
    -- Milliseconds since 1970; old ones are forgotten.
    heard_at {int} NOT NULL,
    PRIMARY KEY (server_name, message_id)
){clustered};
CREATE INDEX heard_messages_by_age ON heard_messages (heard_at);

-- Receipts of peers' users for events that are not here yet. thread is '' for an unthreaded one.
CREATE TABLE waiting_receipts (
    room {int} NOT NULL,
    user_id {text} NOT NULL,
    thread {text} NOT NULL,
    event_id {text} NOT NULL,
    ts {int} NOT NULL,
    -- Milliseconds since 1970; old ones are dropped.
    heard_at {int} NOT NULL,
    PRIMARY KEY (room, user_id, thread)
){clustered};
CREATE INDEX waiting_receipts_by_event ON waiting_receipts (event_id);

-- Devices and keys of users of other servers, as their servers gave them last.
CREATE TABLE remote_device_lists (
    user_id {text} PRIMARY KEY,
    server_name {text} NOT NULL,
    -- Grows with every change, by the count of the user's server.
    version {int} NOT NULL,
    -- Where this server's log stood when it was asked for; 0 once it is in doubt.
    asked_at {int} NOT NULL,
    json {text} NOT NULL
){plain};
CREATE INDEX remote_device_lists_by_server ON remote_device_lists (server_name);

-- Files of other servers that are kept here for a while, each in a file named by its address.
CREATE TABLE cached_media (
    server_name {text} NOT NULL,
    media_id {text} NOT NULL,
    content_type {text},
    file_name {text},
    size {int} NOT NULL,
    -- About when it was last used, in milliseconds since 1970: the longest unused go first.
    used_at {int} NOT NULL,
    PRIMARY KEY (server_name, media_id)
){clustered};
