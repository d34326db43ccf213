-- Indexes for statements that would read all rows to find a few. See 0001_first.sql for the placeholders.

CREATE INDEX key_changes_by_position ON key_changes (reader, position);
-- With the room, so that a user's first rooms are found without reading them all.
DROP INDEX memberships_by_user;
CREATE INDEX memberships_by_user ON memberships (user_id, membership, room);
