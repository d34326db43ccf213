-- What waits for devices and for other servers is counted by who sent it, so that nobody's messages take the place of
-- somebody else's.

-- Who sent a message, and the sender's server where that is another one; empty for what was stored before.
ALTER TABLE to_device ADD COLUMN sender {text} NOT NULL DEFAULT '';
ALTER TABLE to_device ADD COLUMN server {text} NOT NULL DEFAULT '';

-- What waits for a device: of one sender, of all senders of one other server, or of everybody ('').
CREATE TABLE to_device_waiting (
    user_id {text} NOT NULL,
    who {text} NOT NULL,
    device_id {text} NOT NULL,
    messages {int} NOT NULL,
    bytes {int} NOT NULL,
    PRIMARY KEY (user_id, who, device_id)
){clustered};
INSERT INTO to_device_waiting (user_id, who, device_id, messages, bytes)
    SELECT user_id, '', device_id, COUNT(*), SUM(OCTET_LENGTH(json)) FROM to_device GROUP BY user_id, device_id;

-- What waits for another server: of one sender, or of everybody ('').
CREATE TABLE peer_waiting (
    server_name {text} NOT NULL,
    who {text} NOT NULL,
    messages {int} NOT NULL,
    bytes {int} NOT NULL,
    PRIMARY KEY (server_name, who)
){clustered};
INSERT INTO peer_waiting (server_name, who, messages, bytes)
    SELECT server_name, '', COUNT(*), SUM(OCTET_LENGTH(content)) FROM peer_messages GROUP BY server_name;
INSERT INTO peer_waiting (server_name, who, messages, bytes)
    SELECT server_name, sender, COUNT(*), SUM(OCTET_LENGTH(content)) FROM peer_messages GROUP BY server_name, sender;
DROP TABLE peer_queues;
