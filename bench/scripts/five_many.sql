\set k random(1, 1000)
\set n :n + 1
\set epoch :run * 1000 + :client_id
\set seq :epoch * 1000000000 + :n
BEGIN;
SELECT ciphertext FROM bench.vault WHERE id = (SELECT id FROM bench.keys WHERE n = :k) \gset
SELECT pgp_sym_decrypt(:ciphertext::bytea, 'a passphrase of thirty-two letters');
@INSERT@;
UPDATE bench.vault SET last_used_at = now() WHERE id = (SELECT id FROM bench.keys WHERE n = :k);
COMMIT;
