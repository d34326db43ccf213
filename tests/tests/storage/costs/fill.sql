-- Rows for every table that grows. `numbers` holds 1 to as many as there are to be. {group} says whose a row is, {first} is
-- the first number of that group, {blob} the type of bytes.
INSERT INTO rooms SELECT n, '!r' || n || ':x', '11', CASE WHEN n <= 3 THEN 1 ELSE 0 END, n FROM numbers;
INSERT INTO room_heads SELECT n, '[]', n, 1, n, n, 3, 0, n FROM numbers;
INSERT INTO commits SELECT n, n, n, n, CAST('' AS {blob}) FROM numbers;
INSERT INTO events (nid, event_id, room, position, place, type, state_key, sender, origin_server_ts, state, replaces, outcome, notify, thread, relates_to, relation, redacted_by, json, own)
 SELECT n, '$e' || n, {group}, n, n, CASE WHEN n % 10 = 0 THEN 'm.room.member' ELSE 'm.room.message' END,
 CASE WHEN n % 10 = 0 THEN '@u1' END, '@u' || {group}, n, n, NULL, 0, 1,
 CASE WHEN n % 10 IN (2, 3) THEN '$e' || {first} END,
 CASE WHEN n % 10 BETWEEN 2 AND 6 THEN '$e' || {first} WHEN n % 10 = 7 AND n < 60 THEN '$e2' END,
 CASE n % 10 WHEN 2 THEN 'm.thread' WHEN 3 THEN 'm.thread' WHEN 4 THEN 'm.replace' WHEN 5 THEN 'm.reference' WHEN 6 THEN 'm.annotation' WHEN 7 THEN CASE WHEN n < 60 THEN 'm.thread' END END,
 NULL, '{}', 1 FROM numbers;
INSERT INTO events (nid, event_id, room, position, place, type, sender, origin_server_ts, outcome, notify, json, own)
 SELECT 10000000 + n, '$o' || n, {group}, n, NULL, 'm.room.message', '@u2', n, 0, 1, '{}', 1 FROM numbers;
INSERT INTO last_sent SELECT {group}, '@u' || n, n FROM numbers;
INSERT INTO threads SELECT '$e' || n, {group}, 1, n FROM numbers;
INSERT INTO states SELECT n, {group}, CASE WHEN n % 8 = 0 THEN NULL ELSE n + 1 END, CAST('' AS {blob}) FROM numbers;
INSERT INTO memberships (room, user_id, membership, event, position) SELECT {group}, '@u' || n, 'join', n, n FROM numbers;
INSERT INTO memberships (room, user_id, membership, event, position) SELECT n, '@u' || {group}, 'join', n, n FROM numbers WHERE TRUE ON CONFLICT DO NOTHING;
INSERT INTO transactions SELECT '@u' || {group}, 'D1', 'send', 'x' || n, '$e' || n, n, n FROM numbers;
INSERT INTO aliases SELECT '#a' || n, {group}, '@u1' FROM numbers;
INSERT INTO users (user_id, created_at, search_text) SELECT '@u' || n, n, 'u' || n FROM numbers;
INSERT INTO key_changes SELECT '@u' || {group}, '@u' || n, n FROM numbers;
INSERT INTO profiles SELECT '@u' || n, 'displayname', '"x"' FROM numbers;
INSERT INTO profiles SELECT '@u' || n, 'avatar_url', '"x"' FROM numbers;
INSERT INTO devices (user_id, device_id, created_at) SELECT '@u' || {group}, 'D' || n, n FROM numbers;
INSERT INTO access_tokens SELECT CAST('t' || n AS {blob}), '@u' || {group}, 'D' || n, NULL, CAST('r' || n AS {blob}), CAST('q' || n AS {blob}), 'c' || n, CAST('f' || n AS {blob}) FROM numbers;
INSERT INTO oauth_clients SELECT 'c' || n, '{}', 1000000000 + n FROM numbers;
INSERT INTO oauth_codes SELECT CAST('t' || n AS {blob}), 'c1', 'r', 'x', 's', '@u' || {group}, 1, 'D1', 1000000000 + n, NULL FROM numbers;
INSERT INTO device_grants SELECT CAST('t' || n AS {blob}), CAST('u' || n AS {blob}), 'c1', 's', 'D1', 1000000000 + n, NULL, 5, n % 3, '@u1', 1 FROM numbers;
INSERT INTO browser_sessions SELECT CAST('t' || n AS {blob}), '@u' || {group}, 1, 1000000000 + n FROM numbers;
INSERT INTO cross_signing_resets SELECT '@u' || n, 1, 1000000000 + n FROM numbers;
INSERT INTO login_tokens SELECT CAST('t' || n AS {blob}), '@u' || {group}, 1000000000 + n FROM numbers;
INSERT INTO registration_tokens (token_hash, hint, created_at) SELECT CAST('t' || n AS {blob}), 't', n FROM numbers;
INSERT INTO sync_connections SELECT n, '@u' || {group}, 'D' || n, 'x', 5, 5, 5, '[]', n FROM numbers;
INSERT INTO sync_connection_rooms SELECT {group}, n, 1, NULL, 0 FROM numbers;
INSERT INTO reports SELECT n, '@u' || {group}, '!r1:x', NULL, NULL, '', n FROM numbers;
INSERT INTO filters SELECT '@u' || {group}, n, '{' || n || '}' FROM numbers;
INSERT INTO account_data SELECT '@u' || {group}, n, 'm.t', '{}', n FROM numbers;
INSERT INTO account_data SELECT '@u' || n, 0, 'm.push_rules', '{}', n FROM numbers WHERE n % 10 = 1;
INSERT INTO receipts SELECT {group}, '@u' || n, 'm.read', '', '$e' || n, n, n, n, 1 FROM numbers;
INSERT INTO notifications SELECT '@u' || {group}, {group}, n, 1, NULL FROM numbers;
INSERT INTO to_device (user_id, device_id, position, json, sender) SELECT '@u' || {group}, 'D1', n, '{}', '@u' || n FROM numbers;
INSERT INTO to_device_waiting SELECT '@u' || {group}, '@u' || n, 'D1', 1, 2 FROM numbers;
INSERT INTO device_lists SELECT '@u' || n, n, 1 FROM numbers;
INSERT INTO device_keys SELECT '@u' || {group}, 'D' || n, '{}' FROM numbers;
INSERT INTO one_time_keys SELECT '@u' || {group}, 'D1', 'signed_curve25519', 'k' || n, '{}', n, n % 2 FROM numbers;
INSERT INTO fallback_keys SELECT '@u' || {group}, 'D' || n, 'signed_curve25519', 'f', '{}', 0 FROM numbers;
INSERT INTO cross_signing_keys SELECT '@u' || n, 'master', '{}' FROM numbers;
INSERT INTO key_backups SELECT '@u' || n, 1, 'signed_curve25519', '{}', n, 1, 2, 0 FROM numbers;
INSERT INTO room_keys SELECT '@u' || {group}, 1, '!r1:x', 's' || n, 0, 0, 1, '{}' FROM numbers;
INSERT INTO key_signatures SELECT '@u' || {group}, 'D' || n, '@u' || {group}, 'ed25519:x', 's' FROM numbers;
INSERT INTO media SELECT 'm' || n, 's1', '@u' || {group}, NULL, NULL, 1, CASE WHEN n % 10 = 0 THEN NULL ELSE CAST('h' AS {blob}) END, n FROM numbers;
INSERT INTO media_arrivals SELECT 'o' || n, n % 2, n % 2, n FROM numbers;
INSERT INTO media_usage SELECT '@u' || n, 1 FROM numbers;
INSERT INTO account_data_usage SELECT '@u' || n, 1, 2 FROM numbers;
INSERT INTO server_records SELECT 's' || n, CAST('k' AS {blob}), 1, CAST('r' AS {blob}) FROM numbers;
INSERT INTO root_keys SELECT 's' || n, CAST('k' AS {blob}) FROM numbers;
INSERT INTO added_peers SELECT 's' || n, 'a' FROM numbers;
INSERT INTO peers SELECT 's' || n, CAST('l' AS {blob}), CAST('c' AS {blob}) FROM numbers;
INSERT INTO interests SELECT 's' || n, {group}, 1, NULL FROM numbers;
INSERT INTO interests SELECT 's' || {group}, n, 1, NULL FROM numbers WHERE TRUE ON CONFLICT DO NOTHING;
INSERT INTO early_redactions SELECT '$z' || n, '$y' || n, {group}, '@u1' FROM numbers;
INSERT INTO gaps SELECT {group}, n, '[]' FROM numbers;
INSERT INTO inbox SELECT n, 's' || {group}, '!r' || {group} || ':x', '{}', 2, n FROM numbers;
INSERT INTO peer_messages SELECT 's' || {group}, n, 'm' || n, '@u1', '@u2', 'D1', 't', '{}', n FROM numbers;
INSERT INTO peer_waiting SELECT 's' || {group}, '@u' || n, 1, 2 FROM numbers;
INSERT INTO heard_messages SELECT 's' || {group}, 'm' || n, n FROM numbers;
INSERT INTO waiting_receipts SELECT {group}, '@u' || n, '', '$w' || n, n, n FROM numbers;
INSERT INTO remote_device_lists SELECT '@u' || n, 's' || {group}, 1, n, '{}' FROM numbers;
INSERT INTO cached_media SELECT 's' || {group}, 'm' || n, NULL, NULL, 1, n FROM numbers;
INSERT INTO nodes SELECT 'node' || n, n, n, NULL, NULL, 0, 'v', 0, NULL FROM numbers WHERE n <= 20;
INSERT INTO leases SELECT 'lease' || n, n, 1 FROM numbers WHERE n <= 20;
INSERT INTO readers SELECT 'reader' || n, 0, n, 0, 0, NULL, n, n, CAST(NULL AS BIGINT) FROM numbers WHERE n <= 20;
INSERT INTO readers_set_aside SELECT 'reader1', 0, n, 'event', 'why', n FROM numbers WHERE n <= 20;
INSERT INTO jobs SELECT n, 'k1', 'key' || n, 'd' || {group}, n, CASE WHEN n <= 20 THEN 1 WHEN n % 10 = 9 THEN 3 ELSE 0 END, n % 2, 1, 1, CASE WHEN n <= 20 THEN n END, '{}', n, NULL FROM numbers;
INSERT INTO job_attempts_0 SELECT {group}, n, 'k1', n, n, n, 0, NULL FROM numbers;
INSERT INTO job_attempts_1 SELECT {group}, n, 'k1', n, n, n, 0, NULL FROM numbers;
INSERT INTO job_attempts_2 SELECT {group}, n, 'k1', n, n, n, 0, NULL FROM numbers;
INSERT INTO search_edits SELECT n, n FROM numbers;
INSERT INTO appservice_transactions SELECT 'service' || n, n, n, n, CAST('b' AS {blob}) FROM numbers;
