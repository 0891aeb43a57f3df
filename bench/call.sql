-- Baseline: one call of a plpgsql function that selects, opens with pgcrypto, writes a log row and
-- marks the key as used.
CREATE FUNCTION bench.decrypt(key_id uuid, seq bigint, epoch bigint, n bigint) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    plain text;
BEGIN
    SELECT pgp_sym_decrypt(ciphertext, 'a passphrase of thirty-two letters') INTO STRICT plain FROM bench.vault WHERE id = key_id;
    @INSERT@;
    UPDATE bench.vault SET last_used_at = now() WHERE id = key_id;
    RETURN plain;
END $$;
