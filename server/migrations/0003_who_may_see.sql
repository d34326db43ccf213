-- What only some may see: messages of users who had them erased, and key changes of one reader.

-- The log position at which the user's messages were erased for everybody who comes later; none otherwise.
ALTER TABLE users ADD COLUMN erased_at {int};
CREATE INDEX users_erased ON users (user_id) WHERE erased_at IS NOT NULL;

-- Users whose keys look different to one reader alone, because of signatures that only the reader sees.
CREATE TABLE key_changes (
    reader {text} NOT NULL,
    user_id {text} NOT NULL,
    position {int} NOT NULL,
    PRIMARY KEY (reader, user_id)
){clustered};
