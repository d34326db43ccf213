-- What is shown of an event's relations, found without reading them all. See 0001_first.sql for the placeholders.

-- The answers in each thread, as far as they are accepted parts of a timeline.
CREATE TABLE threads (
    -- The event that it began with, which need not be here.
    root {text} NOT NULL,
    room {int} NOT NULL,
    answers {int} NOT NULL,
    -- The place of the newest answer.
    latest {int} NOT NULL,
    PRIMARY KEY (root, room)
){clustered};
CREATE INDEX threads_by_latest ON threads (room, latest);
INSERT INTO threads (root, room, answers, latest)
    SELECT relates_to, room, COUNT(*), MAX(place) FROM events
    WHERE relation = 'm.thread' AND outcome = 0 AND place IS NOT NULL GROUP BY relates_to, room;

-- A room is part of each: an event of another one may claim to relate to anything.
DROP INDEX events_by_thread;
DROP INDEX events_by_relation;
CREATE INDEX events_related ON events (relates_to, room, place) WHERE relates_to IS NOT NULL;
CREATE INDEX events_by_relation ON events (relates_to, room, relation, place) WHERE relates_to IS NOT NULL;
CREATE INDEX events_by_relation_sender ON events (relates_to, room, relation, sender) WHERE relates_to IS NOT NULL;
CREATE INDEX events_by_edit ON events (relates_to, room, sender, type, origin_server_ts, event_id)
    WHERE relation = 'm.replace';
