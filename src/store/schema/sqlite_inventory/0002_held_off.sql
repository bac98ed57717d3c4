-- Authorities that want to be left alone with a subject and role, also when another one is to be asked next: a line for
-- each, until when, a space, and its directory URL. A column, and no table: the first page then says of all tables what
-- it said before, so that one of a fresh database still mends it.
ALTER TABLE attempts ADD COLUMN held_off TEXT NOT NULL DEFAULT '';
