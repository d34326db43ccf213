-- Indexes for statements that would read all rows to find a few. See 0001_first.sql for the placeholders.

CREATE INDEX access_tokens_by_replaced ON access_tokens (replaces_refresh_hash) WHERE replaces_refresh_hash IS NOT NULL;
CREATE INDEX login_tokens_by_expiry ON login_tokens (expires_at);
CREATE INDEX login_tokens_by_user ON login_tokens (user_id);
CREATE INDEX rooms_published ON rooms (nid) WHERE published = 1;
CREATE INDEX waiting_receipts_by_age ON waiting_receipts (heard_at);
CREATE INDEX device_lists_by_position ON device_lists (position);
-- Claimed keys stay for ever: what is offered is found past them.
CREATE INDEX one_time_keys_offered ON one_time_keys (user_id, device_id, algorithm, position) WHERE claimed = 0;
