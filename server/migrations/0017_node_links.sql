-- Where a node takes links of other nodes, as address or host name with port.
ALTER TABLE nodes ADD COLUMN link {text};
