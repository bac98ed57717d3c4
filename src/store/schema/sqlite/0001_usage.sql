-- What names used: recent counts, sealed days, and what a start goes on with.
--
-- The schema's number is PRAGMA user_version: how many of these files were carried out. A file that was released is
-- never edited; a change is another file.
--
-- Buckets are numbers of ten seconds: times 10 they are seconds since the Unix epoch. Hours are hours since it.

-- Every name that anything is known of. Rows stay: a chain's head and anchor must outlive its records.
CREATE TABLE domain (
    id          INTEGER PRIMARY KEY,
    name        TEXT    NOT NULL UNIQUE,
    -- The record that was sealed last, noted apart from the records so that a missing end shows; 0 is before the first.
    head_seq    INTEGER NOT NULL DEFAULT 0,
    head_hash   BLOB    NOT NULL DEFAULT (zeroblob(32)),
    -- The last record that was trimmed for its age: what the first that is kept follows.
    anchor_seq  INTEGER NOT NULL DEFAULT 0,
    anchor_hash BLOB    NOT NULL DEFAULT (zeroblob(32))
) STRICT;

-- Requests by bucket. The hour comes first in the key: what is written now lies together, what is old is removed in
-- one range, and a name's hours are looked up one by one.
CREATE TABLE series (
    hour      INTEGER NOT NULL,
    domain_id INTEGER NOT NULL REFERENCES domain (id),
    -- Pairs of variable-length integers (postcard's): the bucket's place in its hour, 0 to 359, and its requests. A
    -- bucket may stand in them more than once, and its largest count holds; so new counts are appended unread.
    counts    BLOB    NOT NULL,
    PRIMARY KEY (hour, domain_id)
) STRICT, WITHOUT ROWID;

-- Days that are over. Never updated: another record of the same date amends an earlier one, and the last one holds.
CREATE TABLE day (
    domain_id      INTEGER NOT NULL REFERENCES domain (id),
    -- The record's number in the name's chain, from 1, without gaps.
    seq            INTEGER NOT NULL,
    -- What the zone calls the day: 2026-11-23.
    date           TEXT    NOT NULL,
    -- Whose midnights bound it: an IANA name.
    zone           TEXT    NOT NULL,
    -- NULL: without a plan.
    limit_qps      INTEGER,
    -- The highest bucket, the earliest of equals.
    peak_count     INTEGER NOT NULL,
    peak_at        INTEGER NOT NULL,
    requests       INTEGER NOT NULL,
    throttled_secs INTEGER NOT NULL,
    -- SHA-256 of the record before, and of this one (DayRecord::canonical).
    previous       BLOB    NOT NULL,
    hash           BLOB    NOT NULL,
    PRIMARY KEY (domain_id, seq)
) STRICT, WITHOUT ROWID;

-- To find what is too old, and whether a day was sealed already.
CREATE INDEX day_date ON day (date);

-- What a start goes on with, by name (Usage::save).
CREATE TABLE state (
    domain_id   INTEGER PRIMARY KEY REFERENCES domain (id),
    -- No bucket after this one is in it: how trimming knows that it says nothing any more.
    last_bucket INTEGER NOT NULL,
    bytes       BLOB    NOT NULL
) STRICT;

-- The clock and the zone when something was last stored. One row.
CREATE TABLE mark (
    id     INTEGER PRIMARY KEY CHECK (id = 1),
    now_ms INTEGER NOT NULL,
    -- How often the clock had stepped back: see clock.rs.
    pass   INTEGER NOT NULL,
    -- NULL until the first fold.
    zone   TEXT
) STRICT;
