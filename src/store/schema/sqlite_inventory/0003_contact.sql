-- The e-mail address that the authority was last told of. Empty: of none, or nobody knows.
ALTER TABLE account ADD COLUMN contact TEXT NOT NULL DEFAULT '';
