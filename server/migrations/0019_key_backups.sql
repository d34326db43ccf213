-- Backups of room keys (server-side key backups), which clients encrypt for themselves.
CREATE TABLE key_backups (
    user_id {text} NOT NULL,
    -- Counts up from 1 for each user; a number is never used again.
    version {int} NOT NULL,
    algorithm {text} NOT NULL,
    -- A JSON object.
    auth_data {text} NOT NULL,
    -- Counts the changes of its keys.
    etag {int} NOT NULL,
    -- How many keys it holds, and their bytes.
    keys {int} NOT NULL,
    bytes {int} NOT NULL,
    -- Whether it is gone: only its number is kept, until there is a higher one.
    deleted {int} NOT NULL,
    PRIMARY KEY (user_id, version)
){clustered};

CREATE TABLE room_keys (
    user_id {text} NOT NULL,
    version {int} NOT NULL,
    room_id {text} NOT NULL,
    session_id {text} NOT NULL,
    first_message_index {int} NOT NULL,
    forwarded_count {int} NOT NULL,
    is_verified {int} NOT NULL,
    -- A JSON object.
    session_data {text} NOT NULL,
    PRIMARY KEY (user_id, version, room_id, session_id)
){plain};
