-- What application services are sent. See 0001_first.sql for the placeholders.

-- The newest transaction of each service.
CREATE TABLE appservice_transactions (
    service {text} NOT NULL PRIMARY KEY,
    -- Counts the transactions.
    sequence {int} NOT NULL,
    -- It holds what stands in the log after one position and up to another.
    begun_after {int} NOT NULL,
    up_to {int} NOT NULL,
    -- What is sent, until it is accepted: the same whenever it is tried.
    body {blob}
){clustered};
