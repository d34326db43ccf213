-- Since when users are joined. See 0001_first.sql for the placeholders.

-- The position at which the user joined last, who has been joined from then on, or was until something ended it.
ALTER TABLE memberships ADD COLUMN joined_at {int} NOT NULL DEFAULT 0;

-- For those who are joined: the first of their joins after the last of their member events that is none.
UPDATE memberships SET joined_at = COALESCE(
    (SELECT MIN(e.position) FROM events AS e
        WHERE e.room = memberships.room AND e.type = 'm.room.member' AND e.state_key = memberships.user_id
        AND e.outcome = 0 AND e.json LIKE '%"membership":"join"%' AND e.place > COALESCE(
            (SELECT MAX(other.place) FROM events AS other
                WHERE other.room = memberships.room AND other.type = 'm.room.member'
                AND other.state_key = memberships.user_id
                AND other.outcome = 0 AND other.json NOT LIKE '%"membership":"join"%'),
            -9223372036854775807)),
    position)
WHERE membership = 'join';
