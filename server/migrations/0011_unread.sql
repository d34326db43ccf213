-- What is unread begins where a user last sent something: found without reading what came since.

-- Where each user of this server last sent something in a room's main timeline; changes of one's own membership are not it.
CREATE TABLE last_sent (
    room {int} NOT NULL,
    user_id {text} NOT NULL,
    place {int} NOT NULL,
    PRIMARY KEY (room, user_id)
){clustered};
INSERT INTO last_sent (room, user_id, place)
    SELECT room, sender, MAX(place) FROM events
    WHERE own = 1 AND outcome = 0 AND place IS NOT NULL AND thread IS NULL
        AND (state_key IS NULL OR state_key <> sender OR type <> 'm.room.member')
    GROUP BY room, sender;

CREATE INDEX events_in_threads ON events (room, place) WHERE thread IS NOT NULL;
