-- Connections of sliding sync: what of which rooms a device has been sent.
CREATE TABLE sync_connections (
    -- Random.
    id {int} NOT NULL PRIMARY KEY,
    user_id {text} NOT NULL,
    device_id {text} NOT NULL,
    -- The device's own name for it; may be empty.
    conn_id {text} NOT NULL,
    -- Counts the changes of its rooms.
    generation {int} NOT NULL,
    -- The random numbers of the answers that made this generation and the one before it.
    nonce {int} NOT NULL,
    previous_nonce {int} NOT NULL,
    -- A JSON array of room configurations, by number.
    configs {text} NOT NULL,
    -- When its rooms changed last, in milliseconds since 1970.
    changed_at {int} NOT NULL
){plain};

CREATE UNIQUE INDEX sync_connections_by_device ON sync_connections (user_id, device_id, conn_id);
CREATE INDEX sync_connections_by_age ON sync_connections (changed_at);

CREATE TABLE sync_connection_rooms (
    connection {int} NOT NULL,
    room {int} NOT NULL,
    -- The generation from which on this row holds, until one of a later generation does.
    generation {int} NOT NULL,
    -- The position up to which the device has the room; none while it is kept current.
    sent_until {int},
    -- Which of the connection's configurations it was sent by.
    config {int} NOT NULL,
    PRIMARY KEY (connection, room, generation)
){clustered};
