-- Signing in by OAuth 2.0 (client-server API, "OAuth 2.0 API"). Codes and tokens are stored as hashes (SHA-256), times in
-- milliseconds since 1970. See 0001_first.sql for the placeholders.

-- The client that a session is of; none where it was started by the older API.
ALTER TABLE access_tokens ADD COLUMN client_id {text};
-- What all refresh tokens of a session have in common: by it one that was replaced long ago is known for what it is.
ALTER TABLE access_tokens ADD COLUMN family {blob};
CREATE INDEX access_tokens_by_family ON access_tokens (family) WHERE family IS NOT NULL;

CREATE TABLE oauth_clients (
    client_id {text} PRIMARY KEY,
    -- What it says of itself, as JSON.
    metadata {text} NOT NULL,
    -- When it is forgotten unless somebody signs in with it.
    expires_at {int} NOT NULL
){plain};
CREATE INDEX oauth_clients_by_end ON oauth_clients (expires_at);

-- How many rows there are of what strangers can have made.
CREATE TABLE oauth_counts (
    kind {text} PRIMARY KEY,
    held {int} NOT NULL
){plain};
INSERT INTO oauth_counts (kind, held) VALUES ('clients', 0), ('device_grants', 0);

-- What users have allowed, until the client fetches its tokens. A code that has become a session is kept until it ends: who
-- presents it again ends the session.
CREATE TABLE oauth_codes (
    code_hash {blob} PRIMARY KEY,
    client_id {text} NOT NULL,
    redirect_uri {text} NOT NULL,
    -- Of PKCE, by S256.
    challenge {text} NOT NULL,
    scope {text} NOT NULL,
    user_id {text} NOT NULL,
    credentials {int} NOT NULL,
    device_id {text} NOT NULL,
    expires_at {int} NOT NULL,
    -- Of the refresh tokens of the session that it has become.
    family {blob}
){plain};
CREATE INDEX oauth_codes_by_end ON oauth_codes (expires_at);

-- Devices without a browser that ask to be signed in (RFC 8628).
CREATE TABLE device_grants (
    device_code_hash {blob} PRIMARY KEY,
    user_code_hash {blob} NOT NULL,
    client_id {text} NOT NULL,
    scope {text} NOT NULL,
    device_id {text} NOT NULL,
    expires_at {int} NOT NULL,
    -- When the device last asked, and how long it has to wait before the next time.
    polled_at {int},
    pace_ms {int} NOT NULL,
    -- 0 none yet, 1 allowed, 2 denied.
    answer {int} NOT NULL,
    -- Who has allowed it.
    user_id {text},
    credentials {int}
){plain};
CREATE UNIQUE INDEX device_grants_by_user_code ON device_grants (user_code_hash);
CREATE INDEX device_grants_by_end ON device_grants (expires_at);

-- Who is signed in on this server's own pages.
CREATE TABLE browser_sessions (
    token_hash {blob} PRIMARY KEY,
    user_id {text} NOT NULL,
    credentials {int} NOT NULL,
    expires_at {int} NOT NULL
){plain};
CREATE INDEX browser_sessions_by_user ON browser_sessions (user_id, expires_at);
CREATE INDEX browser_sessions_by_end ON browser_sessions (expires_at);

-- Users who have allowed on the account page that their cross-signing keys are replaced.
CREATE TABLE cross_signing_resets (
    user_id {text} PRIMARY KEY,
    credentials {int} NOT NULL,
    expires_at {int} NOT NULL
){plain};
CREATE INDEX cross_signing_resets_by_end ON cross_signing_resets (expires_at);
