-- Moves on when the password changes, when all sessions are ended and when the account is closed: what was proved before
-- is worth nothing after.
ALTER TABLE users ADD COLUMN credentials {int} NOT NULL DEFAULT 0;
