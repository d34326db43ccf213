-- Objects of media that have got their names, or are about to, while nothing may refer to them: whoever is cut off there
-- leaves an object that nobody would find.
CREATE TABLE media_arrivals (
    -- Its name in the storage.
    object {text} NOT NULL PRIMARY KEY,
    -- How many are about to refer to it.
    uploads {int} NOT NULL,
    -- Whether it is being removed: until that is done nobody may give it its name again.
    leaving {int} NOT NULL,
    -- When the newest of that began, in milliseconds since 1970.
    since {int} NOT NULL
){clustered};
CREATE INDEX media_arrivals_by_time ON media_arrivals (since);

-- All copies of other servers' files together count as nobody's uploads.
INSERT INTO media_usage (user_id, bytes)
    SELECT '', CAST(COALESCE(SUM(size), 0) AS BIGINT) FROM cached_media;
