-- The first schema. `{int}`, `{text}`, `{blob}` and the table endings are filled in per engine by store/engine/schema.rs.
-- Positions (log order), places (timeline order) and nids (local numbers of rooms and events) are 64-bit integers.

-- The log's counter: one row, changed in every transaction that stores something a reader may have to hear of.
CREATE TABLE log (
    one {int} PRIMARY KEY CHECK (one = 1),
    log_id {text} NOT NULL,
    position {int} NOT NULL
){plain};

CREATE TABLE rooms (
    nid {int} PRIMARY KEY,
    room_id {text} NOT NULL UNIQUE,
    version {text} NOT NULL,
    -- 1 while the room is listed in the public directory.
    published {int} NOT NULL DEFAULT 0,
    created_at {int} NOT NULL
){plain};

-- The committed head of each room: what the next event is built on.
CREATE TABLE room_heads (
    room {int} PRIMARY KEY,
    -- JSON array of the event ids without children.
    extremities {text} NOT NULL,
    state {int},
    first_place {int} NOT NULL,
    last_place {int} NOT NULL,
    depth {int} NOT NULL,
    joined {int} NOT NULL,
    invited {int} NOT NULL
){plain};

CREATE TABLE events (
    nid {int} PRIMARY KEY,
    event_id {text} NOT NULL UNIQUE,
    room {int} NOT NULL,
    -- When this server learnt of it.
    position {int} NOT NULL,
    -- Where it stands in the room's timeline; none for outliers.
    place {int},
    type {text} NOT NULL,
    state_key {text},
    sender {text} NOT NULL,
    origin_server_ts {int} NOT NULL,
    -- The state after this event (states.nid).
    state {int},
    -- The state event that this one replaced (events.nid).
    replaces {int},
    -- 0 accepted, 1 soft-failed, 2 rejected.
    outcome {int} NOT NULL,
    -- What the default push rules say to a member who is not mentioned: 0 nothing, 1 notify, 2 highlight.
    notify {int} NOT NULL,
    -- Root of the thread it belongs to, none for the main timeline.
    thread {text},
    -- The event it relates to, and how.
    relates_to {text},
    relation {text},
    -- The event that redacted this one.
    redacted_by {text},
    json {text} NOT NULL
){plain};
CREATE UNIQUE INDEX events_by_place ON events (room, place);
CREATE INDEX events_by_position ON events (room, position);
CREATE INDEX events_by_relation ON events (relates_to, relation, place) WHERE relates_to IS NOT NULL;
CREATE INDEX events_by_thread ON events (room, thread, place) WHERE thread IS NOT NULL;
CREATE INDEX events_by_slot ON events (room, type, state_key, place) WHERE state_key IS NOT NULL;

-- Room state as geometric runs: a state is its own entries over the state `below`.
CREATE TABLE states (
    nid {int} PRIMARY KEY,
    room {int} NOT NULL,
    below {int},
    entries {blob} NOT NULL
){plain};

-- Membership by the room's current state.
CREATE TABLE memberships (
    room {int} NOT NULL,
    user_id {text} NOT NULL,
    membership {text} NOT NULL,
    event {int} NOT NULL,
    position {int} NOT NULL,
    -- 1 once the user has forgotten the room.
    forgotten {int} NOT NULL DEFAULT 0,
    -- JSON array of stripped state that came with an invite or knock from elsewhere.
    stripped_state {text},
    PRIMARY KEY (room, user_id)
){clustered};
CREATE INDEX memberships_by_user ON memberships (user_id, membership);

-- What a client's transaction id became, so that a retry makes no second event.
CREATE TABLE transactions (
    user_id {text} NOT NULL,
    device_id {text} NOT NULL,
    scope {text} NOT NULL,
    transaction_id {text} NOT NULL,
    event_id {text} NOT NULL,
    position {int} NOT NULL,
    -- Milliseconds since 1970; old ones are forgotten.
    used_at {int} NOT NULL,
    PRIMARY KEY (user_id, device_id, scope, transaction_id)
){clustered};
CREATE INDEX transactions_by_position ON transactions (position);

CREATE TABLE aliases (
    alias {text} PRIMARY KEY,
    room {int} NOT NULL,
    creator {text} NOT NULL
){plain};
CREATE INDEX aliases_by_room ON aliases (room);

CREATE TABLE users (
    user_id {text} PRIMARY KEY,
    -- argon2id in PHC form; none when the account cannot log in by password.
    password_hash {text},
    admin {int} NOT NULL DEFAULT 0,
    deactivated {int} NOT NULL DEFAULT 0,
    created_at {int} NOT NULL,
    -- Local part and display name in lower case: what the user directory looks in. Empty for a closed account.
    search_text {text} NOT NULL
){plain};

CREATE TABLE profiles (
    user_id {text} NOT NULL,
    field {text} NOT NULL,
    -- JSON.
    value {text} NOT NULL,
    PRIMARY KEY (user_id, field)
){clustered};

CREATE TABLE devices (
    user_id {text} NOT NULL,
    device_id {text} NOT NULL,
    display_name {text},
    created_at {int} NOT NULL,
    last_seen_at {int},
    last_seen_address {text},
    PRIMARY KEY (user_id, device_id)
){clustered};

CREATE TABLE access_tokens (
    -- SHA-256.
    token_hash {blob} PRIMARY KEY,
    user_id {text} NOT NULL,
    device_id {text} NOT NULL,
    -- Milliseconds since 1970; none for a token that does not expire.
    expires_at {int},
    -- The refresh token that comes with it (SHA-256).
    refresh_hash {blob},
    -- The refresh token this pair replaced: dropped when the new pair is first used.
    replaces_refresh_hash {blob}
){plain};
CREATE INDEX access_tokens_by_device ON access_tokens (user_id, device_id);
CREATE INDEX access_tokens_by_refresh ON access_tokens (refresh_hash) WHERE refresh_hash IS NOT NULL;

-- Single-use tokens for m.login.token.
CREATE TABLE login_tokens (
    token_hash {blob} PRIMARY KEY,
    user_id {text} NOT NULL,
    expires_at {int} NOT NULL
){plain};

CREATE TABLE registration_tokens (
    token_hash {blob} PRIMARY KEY,
    -- First characters, to tell tokens apart in a list.
    hint {text} NOT NULL,
    uses_allowed {int},
    uses {int} NOT NULL DEFAULT 0,
    -- 1 when the account made with it becomes an admin.
    admin {int} NOT NULL DEFAULT 0,
    expires_at {int},
    created_at {int} NOT NULL
){plain};

CREATE TABLE filters (
    user_id {text} NOT NULL,
    filter_id {int} NOT NULL,
    json {text} NOT NULL,
    PRIMARY KEY (user_id, filter_id)
){clustered};

-- room is 0 for global account data.
CREATE TABLE account_data (
    user_id {text} NOT NULL,
    room {int} NOT NULL,
    type {text} NOT NULL,
    content {text} NOT NULL,
    position {int} NOT NULL,
    PRIMARY KEY (user_id, room, type)
){clustered};
CREATE INDEX account_data_by_position ON account_data (user_id, position);
-- Who has push rules of their own.
CREATE INDEX account_data_push_rules ON account_data (user_id) WHERE type = 'm.push_rules';

-- The latest receipt per user, room, type and thread ('' for an unthreaded one).
CREATE TABLE receipts (
    room {int} NOT NULL,
    user_id {text} NOT NULL,
    type {text} NOT NULL,
    thread {text} NOT NULL,
    event_id {text} NOT NULL,
    place {int} NOT NULL,
    ts {int} NOT NULL,
    position {int} NOT NULL,
    PRIMARY KEY (room, user_id, type, thread)
){clustered};
CREATE INDEX receipts_by_position ON receipts (room, position);

-- Where a user's own push rules say something else than events.notify: 0 nothing, 1 notify, 2 highlight.
CREATE TABLE notifications (
    user_id {text} NOT NULL,
    room {int} NOT NULL,
    place {int} NOT NULL,
    notify {int} NOT NULL,
    thread {text},
    PRIMARY KEY (user_id, room, place)
){clustered};

CREATE TABLE to_device (
    user_id {text} NOT NULL,
    device_id {text} NOT NULL,
    position {int} NOT NULL,
    json {text} NOT NULL,
    PRIMARY KEY (user_id, device_id, position)
){clustered};

-- The newest change of each user's device list.
CREATE TABLE device_lists (
    user_id {text} PRIMARY KEY,
    position {int} NOT NULL
){plain};

CREATE TABLE device_keys (
    user_id {text} NOT NULL,
    device_id {text} NOT NULL,
    json {text} NOT NULL,
    PRIMARY KEY (user_id, device_id)
){clustered};

CREATE TABLE one_time_keys (
    user_id {text} NOT NULL,
    device_id {text} NOT NULL,
    algorithm {text} NOT NULL,
    key_id {text} NOT NULL,
    json {text} NOT NULL,
    -- Oldest first.
    position {int} NOT NULL,
    -- 1 once it was handed out; the key itself is gone then.
    claimed {int} NOT NULL DEFAULT 0,
    PRIMARY KEY (user_id, device_id, algorithm, key_id)
){clustered};

CREATE TABLE fallback_keys (
    user_id {text} NOT NULL,
    device_id {text} NOT NULL,
    algorithm {text} NOT NULL,
    key_id {text} NOT NULL,
    json {text} NOT NULL,
    used {int} NOT NULL DEFAULT 0,
    PRIMARY KEY (user_id, device_id, algorithm)
){clustered};

-- m.cross_signing keys: usage is master, self_signing or user_signing.
CREATE TABLE cross_signing_keys (
    user_id {text} NOT NULL,
    usage {text} NOT NULL,
    json {text} NOT NULL,
    PRIMARY KEY (user_id, usage)
){clustered};

-- Signatures that one user's key made over another's key or device.
CREATE TABLE key_signatures (
    target_user_id {text} NOT NULL,
    -- Device id or base64 public key.
    target_key {text} NOT NULL,
    signer_user_id {text} NOT NULL,
    signer_key_id {text} NOT NULL,
    signature {text} NOT NULL,
    PRIMARY KEY (target_user_id, target_key, signer_user_id, signer_key_id)
){clustered};

CREATE TABLE media (
    media_id {text} NOT NULL,
    server_name {text} NOT NULL,
    user_id {text},
    content_type {text},
    file_name {text},
    -- In bytes; -1 while the content has not been uploaded.
    size {int} NOT NULL,
    -- SHA-256 of the content.
    sha256 {blob},
    created_at {int} NOT NULL,
    PRIMARY KEY (server_name, media_id)
){clustered};
CREATE INDEX media_created ON media (user_id) WHERE sha256 IS NULL;
