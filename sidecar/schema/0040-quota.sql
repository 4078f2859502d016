-- What is in use of each quota, so that a restart neither forgets nor doubles it. Rows that are used up are deleted.

CREATE TABLE quota (
    quota TEXT NOT NULL,   -- name, as in the configuration
    key   TEXT NOT NULL,   -- whose: a login, a domain, an address
    taken REAL NOT NULL,   -- messages or recipients of messages that have ended, less what had come back
    at    REAL NOT NULL,   -- when that was so, seconds since the epoch, UTC
    PRIMARY KEY (quota, key)
) STRICT, WITHOUT ROWID;
