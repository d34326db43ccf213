-- What is unread begins where the user last spoke: found without reading what came since, and the threads apart.
CREATE INDEX events_by_sender ON events (room, sender, place) WHERE own = 1 AND thread IS NULL;
CREATE INDEX events_in_threads ON events (room, place) WHERE thread IS NOT NULL;
