#!/usr/bin/env bash
# Measures what the log hook costs: processor time of the backend for `SELECT 1` and for a short line in the log, with
# watchllm_keys.redact_server_log off and on in turn, medians of rounds. Variables: CALLS (200000 a round), ROUNDS (5).

# shellcheck source=scripts/env.sh
. "$(dirname "$0")/../scripts/env.sh"
need_postgres
# shellcheck source=scripts/cluster.sh
. "$ROOT/scripts/cluster.sh"

CALLS=${CALLS:-200000}
ROUNDS=${ROUNDS:-5}

cluster_start bench_log <<'END'
shared_buffers = 64MB
END
trap 'cluster_remove bench_log' EXIT
admin_psql() { cluster_psql -A -t -d postgres "$@"; }

# Nanoseconds of processor time that this backend has had.
SPENT="split_part(pg_read_file('/proc/self/schedstat'), ' ', 1)::bigint"
between() { # name, the work on stdin
    printf 'CREATE TEMP TABLE began AS SELECT %s AS at;\n\\o /dev/null\n' "$SPENT"
    cat
    printf "\\\\o\nSELECT '%s', (%s - at) / %s FROM began;\n" "$1" "$SPENT" "$CALLS"
}
awk -v calls="$CALLS" 'BEGIN { for (i = 0; i < calls; i++) print "SELECT 1;" }' | between statement >"$CLUSTER/statement.sql"
printf "DO \$\$ BEGIN FOR i IN 1..%s LOOP RAISE LOG 'connection %% of a client was closed after %% s', i, 12; END LOOP; END \$\$;\n" \
    "$CALLS" | between line >"$CLUSTER/line.sql"

admin_psql -c "ALTER SYSTEM SET client_min_messages = 'error'"
for _ in $(seq "$ROUNDS"); do
    for switch in off on; do
        admin_psql -c "ALTER SYSTEM SET watchllm_keys.redact_server_log = $switch" -c 'SELECT pg_reload_conf()' >/dev/null
        sleep 0.5
        for what in statement line; do printf '%s|%s\n' "$switch" "$(admin_psql <"$CLUSTER/$what.sql")"; done
    done
done | sort -t'|' -k2,2 -k1,1 -k3,3n | awk -F'|' '
    { value[$2, $1, ++count[$2, $1]] = $3 }
    END {
        for (i = split("statement line", what, " "); i > 0; i--) {
            off = value[what[i], "off", int((count[what[i], "off"] + 1) / 2)]
            on = value[what[i], "on", int((count[what[i], "on"] + 1) / 2)]
            printf "%s: %d ns without the hook, %d ns with it: %+.1f %%\n", what[i], off, on, 100 * (on - off) / off
        }
    }'
