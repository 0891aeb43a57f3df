\set n :n + 1
\set epoch :run * 1000 + :client_id
\set seq :epoch * 1000000000 + :n
SELECT bench.decrypt(:id, :seq, :epoch, :n);
