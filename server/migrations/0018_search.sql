-- Full-text search, and readers that begin with what is stored. See 0001_first.sql for the placeholders.

-- The index, of which each engine has its own kind (store/search/mod.rs).
{search_index};

-- Edits, and the events that they edit: an edit that is redacted does not say so any more.
CREATE TABLE search_edits (
    edit {int} PRIMARY KEY,
    event {int} NOT NULL
){plain};

-- For a reader that reads the stored events before it follows the log: the number of the last one that it has dealt with.
ALTER TABLE readers ADD COLUMN building {int};
