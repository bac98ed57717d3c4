-- Certificates, the keys that belong to them, and what is under way to get more.
--
-- The schema's number is PRAGMA user_version: how many of these files were carried out. A file that was released is
-- never edited; a change is another file. Times are seconds since the Unix epoch. Every private key is sealed: see
-- vault.rs for what it takes to open one. All tables have a rowid: it is how rows are found again in a damaged database.

-- The data keys that keys are sealed under, each wrapped by a key-encryption key that is not in here.
CREATE TABLE data_key (
    id         INTEGER PRIMARY KEY,
    -- Which key-encryption key wrapped it, without giving it away.
    wrapped_by TEXT    NOT NULL,
    wrapped    BLOB    NOT NULL,
    made_at    INTEGER NOT NULL
) STRICT;

-- A copy on another page: all keys are lost with these, and one bad page must not take them.
CREATE INDEX data_key_copy ON data_key (id, wrapped_by, wrapped, made_at);

CREATE TABLE certificate (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    -- The first of the names it was ordered for.
    subject     TEXT    NOT NULL,
    tenant      TEXT,
    -- 'own' or 'standby'.
    role        TEXT    NOT NULL,
    -- 'acme', 'on-demand' or 'uploaded'.
    provenance  TEXT    NOT NULL,
    -- The authority's directory URL.
    ca          TEXT    NOT NULL,
    -- What the leaf says, so that a start parses nothing: a version, a CRC-32 of leaf and facts, postcard.
    facts       BLOB    NOT NULL,
    not_after   INTEGER NOT NULL,
    -- SHA-256 of the leaf.
    fingerprint BLOB    NOT NULL UNIQUE,
    leaf        BLOB    NOT NULL,
    -- The rest of the chain, each kept once: numbers of issuers, in order, separated by spaces.
    issuers     TEXT    NOT NULL,
    sealed_key  BLOB    NOT NULL,
    kept_at     INTEGER NOT NULL,
    revoked_at  INTEGER,
    -- Renewal information (RFC 9773): the window, and when to ask again.
    ari_start   INTEGER,
    ari_end     INTEGER,
    ari_next    INTEGER
) STRICT;

-- For trimming: what ended, whether something newer is there, and which issuers are named at all.
CREATE INDEX certificate_expiry  ON certificate (not_after);
CREATE INDEX certificate_subject ON certificate (subject, role, not_after);
CREATE INDEX certificate_issuers ON certificate (issuers);

-- Certificates of authorities: the same few stand in nearly every chain. Numbers are never used again: a chain that lost
-- one must not get another in its place.
CREATE TABLE issuer (
    id  INTEGER PRIMARY KEY AUTOINCREMENT,
    der BLOB    NOT NULL
) STRICT;

-- Also a copy on other pages: nearly every chain needs one of a few.
CREATE UNIQUE INDEX issuer_copy ON issuer (der);

CREATE TABLE account (
    ca         TEXT    NOT NULL,
    -- Empty: without an external account.
    eab_kid    TEXT    NOT NULL,
    url        TEXT    NOT NULL,
    sealed_key BLOB    NOT NULL,
    made_at    INTEGER NOT NULL,
    PRIMARY KEY (ca, eab_kid)
) STRICT;

-- One at a time for each subject and role.
CREATE TABLE acme_order (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    subject    TEXT    NOT NULL,
    role       TEXT    NOT NULL,
    ca         TEXT    NOT NULL,
    url        TEXT    NOT NULL,
    -- Separated by spaces.
    names      TEXT    NOT NULL,
    -- NULL until it is finalized.
    sealed_key BLOB,
    placed_at  INTEGER NOT NULL,
    UNIQUE (subject, role)
) STRICT;

-- What failed since the last success, and when it is tried again.
CREATE TABLE attempts (
    subject  TEXT    NOT NULL,
    role     TEXT    NOT NULL,
    failures INTEGER NOT NULL,
    first_at INTEGER NOT NULL,
    last_at  INTEGER NOT NULL,
    next_at  INTEGER NOT NULL,
    ca       TEXT    NOT NULL,
    problem  TEXT    NOT NULL,
    advice   TEXT    NOT NULL,
    PRIMARY KEY (subject, role)
) STRICT;

-- What else is sealed, by name.
CREATE TABLE secret (
    name   TEXT PRIMARY KEY,
    sealed BLOB NOT NULL,
    public BLOB NOT NULL
) STRICT;

-- A copy, as of data keys.
CREATE INDEX secret_copy ON secret (name, sealed, public);
