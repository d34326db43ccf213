-- What users have reported to the admin.
CREATE TABLE reports (
    id {int} PRIMARY KEY,
    reporter {text} NOT NULL,
    -- The room, and of its events one, or a user: whatever it is about.
    room_id {text},
    event_id {text},
    user_id {text},
    reason {text} NOT NULL,
    -- Milliseconds since 1970.
    reported_at {int} NOT NULL
){plain};
CREATE INDEX reports_by_reporter ON reports (reporter);
