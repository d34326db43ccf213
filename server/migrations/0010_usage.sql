-- What each account keeps here, counted as it is stored.

-- Bytes of all uploads of a user.
CREATE TABLE media_usage (
    user_id {text} PRIMARY KEY,
    bytes {int} NOT NULL
){plain};
INSERT INTO media_usage (user_id, bytes)
    SELECT user_id, CAST(SUM(size) AS BIGINT) FROM media
    WHERE sha256 IS NOT NULL AND user_id IS NOT NULL GROUP BY user_id;
-- Whether a content is still referred to.
CREATE INDEX media_by_sha256 ON media (sha256);

-- Items and bytes of a user's account data, but for what only the server writes.
CREATE TABLE account_data_usage (
    user_id {text} PRIMARY KEY,
    items {int} NOT NULL,
    bytes {int} NOT NULL
){plain};
INSERT INTO account_data_usage (user_id, items, bytes)
    SELECT user_id, COUNT(*), SUM(OCTET_LENGTH(type) + OCTET_LENGTH(content)) FROM account_data
    WHERE type NOT IN ('m.fully_read', 'm.push_rules') GROUP BY user_id;
