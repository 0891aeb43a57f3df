#!/usr/bin/env bash
# Measures scan_server_log() on a log of 1 GB made here, with a stored key of no known shape in its
# last line. Reports the peak of the backend's own memory (RssAnon, without shared memory),
# megabytes a second, and that the key is named. Variable: MEGABYTES (1024).

# shellcheck source=scripts/env.sh
. "$(dirname "$0")/../scripts/env.sh"
need_postgres
# shellcheck source=scripts/cluster.sh
. "$ROOT/scripts/cluster.sh"

MEGABYTES=${MEGABYTES:-1024}

say "a fresh cluster in $RUN/bench_scan_log, a log of $MEGABYTES MB"
cluster_start bench_scan_log <<'END'
logging_collector = on
log_directory = 'log'
END
trap 'cluster_remove bench_scan_log' EXIT
admin_psql() { cluster_psql -A -t -v ON_ERROR_STOP=1 -d postgres "$@"; }

admin_psql -c 'CREATE EXTENSION watchllm_keys' -c 'SELECT watchllm.install()' >/dev/null
KEY=odd/$(od -An -vtx1 -N16 /dev/urandom | tr -d ' \n')+=
STORED=$(admin_psql -c "SELECT watchllm.store_provider_key(watchllm.create_project('bench'), 'selfmade', '$KEY')")

# Lines of a web application's database, until it is large enough.
# shellcheck disable=SC2016
as_runner awk -v size="$((MEGABYTES * 1048576))" -v key="$KEY" 'BEGIN {
    for (i = 1; written < size; i++) {
        line = sprintf("2026-01-01 12:%02d:%02d.%03d UTC [%d] app@shop LOG:  duration: 0.%d ms  statement: SELECT id, name FROM items WHERE id = %d AND path = \x27/v1/items/%d?page=%d\x27",
            i / 6000 % 60, i / 100 % 60, i % 1000, i % 977, i % 997, i, i * 7, i % 11)
        print line
        written += length(line) + 1
    }
    print "LOG:  x-key: " key
}' | as_runner tee "$DATA/log/large.log" >/dev/null

# The scan's backend writes its number into a file, which the sampling shell waits for.
scan() {
    admin_psql 2>/dev/null <<END
SELECT pg_backend_pid() AS pid \gset
\o $CLUSTER/pid
SELECT :pid;
\o
\timing on
SELECT provider_key_id FROM watchllm.scan_server_log();
END
}

# Kilobytes.
own_memory() { sed -n 's/^RssAnon:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$1/status" 2>/dev/null; }

say "scanning"
scan >"$CLUSTER/scanned" &
SCAN=$!
until [ -s "$CLUSTER/pid" ]; do sleep 0.05; done
BACKEND=$(cat "$CLUSTER/pid")
PEAK=0
while NOW=$(own_memory "$BACKEND") && [ -n "$NOW" ]; do
    [ "$NOW" -le "$PEAK" ] || PEAK=$NOW
    sleep 0.05
done
wait "$SCAN"
grep -qx "$STORED" "$CLUSTER/scanned" || die "the stored key was not found"
sed -n 's/^Time: \([0-9.]*\).*/\1/p' "$CLUSTER/scanned" | awk -v peak="$PEAK" -v megabytes="$MEGABYTES" '{
    printf "scan_server_log of %d MB: %.1f MB of own memory at its peak (asked: under 30), %.0f MB a second, the stored key named\n",
        megabytes, peak / 1024, megabytes / ($1 / 1000)
}'
