#!/usr/bin/env bash
# Measures the vault against the alternatives, all in the same run on the same machine: rounds in
# turn, medians, ratios. Absolute numbers say little on another day; ratios do. Variables: ROUNDS
# (3), BENCH_SECONDS (3 per measurement), CALLS (100000).

# shellcheck source=scripts/env.sh
. "$(dirname "$0")/../scripts/env.sh"
need_postgres
# shellcheck source=scripts/cluster.sh
. "$ROOT/scripts/cluster.sh"

ROUNDS=${ROUNDS:-3}
BENCH_SECONDS=${BENCH_SECONDS:-3}
CALLS=${CALLS:-100000}
CLIENTS=(1 4 16 32)
SCRIPTS=(select1 insert five_many five_hot call_many call_hot decrypt_many decrypt_hot)
RUNS=0

start_server() {
    say "a fresh cluster in $RUN/bench"
    cluster_start bench <<'END'
max_connections = 60
shared_buffers = 256MB
max_wal_size = 8GB
checkpoint_timeout = 1h
watchllm_keys.max_active_keys = 0
END
    trap 'cluster_remove bench' EXIT
}

admin_psql() { cluster_psql -A -t -v ON_ERROR_STOP=1 -d postgres "$@"; }
bench_psql() { cluster_psql -A -t -v ON_ERROR_STOP=1 -d postgres -U bench "$@"; }

# The scripts go where pgbench's user can read them, with the INSERT of a real row filled in.
fill_in() { # script text on stdin, the INSERT as argument
    local text
    text=$(cat)
    printf '%s\n' "${text//@INSERT@/"$1"}"
}

prepare() {
    local script insert
    say "storing 1600 keys"
    admin_psql <"$ROOT/bench/setup.sql" >/dev/null
    admin_psql -c 'CHECKPOINT' >/dev/null
    HOT=$(admin_psql -c 'SELECT id FROM bench.keys WHERE n = 1')
    insert=$(admin_psql -c "SELECT bench.insert_of_a_row(':seq', ':epoch', ':n')")
    [ -n "$insert" ] || die "no decrypt in the audit trail to take a sample row from"
    mkdir -p "$CLUSTER/scripts"
    for script in "$ROOT"/bench/scripts/*.sql; do fill_in "$insert" <"$script" >"$CLUSTER/scripts/${script##*/}"; done
    insert=$(admin_psql -c "SELECT bench.insert_of_a_row('seq', 'epoch', 'n')")
    fill_in "$insert" <"$ROOT/bench/call.sql" | admin_psql
}

# Transactions a second of one script. Each run has an epoch of its own, so that the baselines' rows are unique too.
pgbench_run() { # script clients arguments…
    local script=$1 clients=$2
    shift 2
    RUNS=$((RUNS + 1))
    as_runner "$SERVER/bin/pgbench" -n -M prepared -h "$SOCKET" -U bench -c "$clients" -j "$((clients < 2 ? 1 : 2))" \
        -D "run=$RUNS" -D n=0 -D "id=$HOT" -f "$CLUSTER/scripts/$script.sql" "$@" postgres 2>&1
}

# One line for each measurement: round, script, clients, transactions a second. Round 0 settles and is not counted.
measure() {
    local round script clients seconds output tps
    for round in $(seq 0 "$ROUNDS"); do
        say "$([ "$round" = 0 ] && echo "settling" || echo "round $round of $ROUNDS")"
        seconds=$([ "$round" = 0 ] && echo 1 || echo "$BENCH_SECONDS")
        admin_psql -c CHECKPOINT >/dev/null
        for clients in "${CLIENTS[@]}"; do
            for script in "${SCRIPTS[@]}"; do
                output=$(pgbench_run "$script" "$clients" -T "$seconds") || die "pgbench $script:"$'\n'"$output"
                tps=$(sed -n 's/^tps = \([0-9.]*\).*/\1/p' <<<"$output")
                [ "$round" = 0 ] || printf '%s %s %s %s\n' "$round" "$script" "$clients" "$tps"
            done
        done
    done
}

# The mean milliseconds of a first decrypt on a new connection, for the 100 keys above the given number.
first_on_new_connection() {
    local output
    output=$(pgbench_run first 1 -C -r -t 100 -D "n=$1") || die "pgbench first:"$'\n'"$output"
    awk '/decrypt_provider_key/ && $1 ~ /^[0-9.]+$/ { print $1; exit }' <<<"$output"
}

# The mean milliseconds of three calls on each of 300 new connections: SELECT 1, a first decrypt, a second one.
calls_of_new_connections() {
    local output
    output=$(pgbench_run new_connection 1 -C -r -t 300) || die "pgbench new_connection:"$'\n'"$output"
    awk '/SELECT/ && $1 ~ /^[0-9.]+$/ { printf "%s ", $1 } END { print "" }' <<<"$output"
}

start_server
prepare
RESULTS=$CLUSTER/results
measure >"$RESULTS"
say "an array of 1000, cold keys, memory"
IFS='|' read -r ROWS ARRAY < <(bench_psql <"$ROOT/bench/array.sql")
IFS='|' read -r COLD WARM < <(bench_psql <"$ROOT/bench/cold.sql")
NEW_COLD=$(first_on_new_connection 1200)
NEW_WARM=$(first_on_new_connection 1200)
read -r NEW_SELECT NEW_FIRST NEW_LATER < <(calls_of_new_connections)
mapfile -t MEMORY < <(bench_psql -v calls="$CALLS" <"$ROOT/bench/memory.sql")

awk -v version="$("$SERVER/bin/postgres" --version)" -v rounds="$ROUNDS" -v seconds="$BENCH_SECONDS" -v calls="$CALLS" \
    -v rows="$ROWS" -v array="$ARRAY" -v cold="$COLD" -v warm="$WARM" -v new_cold="$NEW_COLD" -v new_warm="$NEW_WARM" \
    -v new_select="$NEW_SELECT" -v new_first="$NEW_FIRST" -v new_later="$NEW_LATER" \
    -v context_before="${MEMORY[0]}" -v rss_before="${MEMORY[1]}" -v context_after="${MEMORY[2]}" -v rss_after="${MEMORY[3]}" \
    -v json="$RUN/bench.json" -f "$ROOT/bench/report.awk" "$RESULTS"
printf '\nwritten to %s\n' "$RUN/bench.json"

say "masking keys in text"
admin_psql <"$ROOT/bench/redact.sql" | tee "$RUN/bench_redact.txt" | awk -f "$ROOT/bench/redact.awk"

say "the log hook"
"$ROOT/bench/log_hook.sh"

if have node; then
    "$ROOT/bench/import.sh"
else
    say "the import is not measured: node is not installed"
fi

say "the watch"
"$ROOT/bench/watch.sh"

say "a scan of the server log"
"$ROOT/bench/scan_log.sh"
