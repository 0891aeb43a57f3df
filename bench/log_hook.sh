#!/usr/bin/env bash
# Measures the log hook: the backend's processor time for `SELECT 1` and for a short line in the
# log, with watchllm_keys.redact_server_log off and on in turn. Statements are sent one by one, as
# clients do. They are also sent in pipelines of 1,000, where nothing waits and the hook weighs
# most. Medians of thousands of statements, and of rounds of lines. Variables: CALLS (100000 a
# round), ROUNDS (10).

# shellcheck source=scripts/env.sh
. "$(dirname "$0")/../scripts/env.sh"
need_postgres
# shellcheck source=scripts/cluster.sh
. "$ROOT/scripts/cluster.sh"

CALLS=${CALLS:-100000}
ROUNDS=${ROUNDS:-10}

cluster_start bench_log <<'END'
shared_buffers = 64MB
END
trap 'cluster_remove bench_log' EXIT
admin_psql() { cluster_psql -A -t -d postgres "$@"; }

# The backend's processor time in nanoseconds, and the result of each measurement, for one call.
admin_psql -c "ALTER SYSTEM SET client_min_messages = 'error'" \
    -c "CREATE FUNCTION spent() RETURNS bigint LANGUAGE sql VOLATILE AS
        \$\$ SELECT split_part(pg_read_file('/proc/self/schedstat'), ' ', 1)::bigint \$\$" \
    -c 'CREATE UNLOGGED TABLE costs (what text, switch text, nanoseconds bigint)' >/dev/null

# pgbench reads its scripts as the user who runs it.
statements() { # what, the line before, the line after, the protocol
    awk -v what="$1" -v before="$2" -v after="$3" 'BEGIN {
        print "SELECT spent() AS began \\gset\n" before
        for (i = 0; i < 1000; i++) print "SELECT 1;"
        print after "\nSELECT spent() AS ended \\gset"
        print "INSERT INTO costs VALUES (\047" what "\047, current_setting(\047watchllm_keys.redact_server_log\047), (:ended::bigint - :began::bigint) / 1000);"
    }' | as_runner tee "$CLUSTER/$4.sql" >/dev/null
}
statements 'SELECT 1' '' '' simple
statements 'SELECT 1 in a pipeline' '\\startpipeline' '\\endpipeline' extended

for round in $(seq "$ROUNDS"); do
    for switch in $([ $((round % 2)) = 0 ] && echo off on || echo on off); do
        admin_psql -c "ALTER SYSTEM SET watchllm_keys.redact_server_log = $switch" -c 'SELECT pg_reload_conf()' >/dev/null
        sleep 0.3
        for mode in simple extended; do
            as_runner "$SERVER/bin/pgbench" -n -M "$mode" -h "$SOCKET" -U postgres -c 1 -t $((CALLS / 1000)) \
                -f "$CLUSTER/$mode.sql" postgres >/dev/null
        done
        admin_psql >/dev/null <<END
DO \$\$
DECLARE began bigint := spent();
BEGIN
    FOR i IN 1..$CALLS LOOP RAISE LOG 'connection % of a client was closed after % s', i, 12; END LOOP;
    INSERT INTO costs VALUES ('log line', '$switch', (spent() - began) / $CALLS);
END \$\$;
END
    done
done
admin_psql -c "SELECT format('%s: %s ns without the hook, %s ns with it: %s %%', what, without, with_it,
        round(100.0 * (with_it - without) / without, 1))
    FROM (SELECT what, percentile_disc(0.5) WITHIN GROUP (ORDER BY nanoseconds) FILTER (WHERE switch = 'off') AS without,
              percentile_disc(0.5) WITHIN GROUP (ORDER BY nanoseconds) FILTER (WHERE switch = 'on') AS with_it
          FROM costs GROUP BY what) medians ORDER BY what"
