#!/usr/bin/env bash
# Measures the watch: the processor time of counting an access against all that the writer spends on
# one, and memory. Also what a restart and the look back cost over a month of rows. Variables:
# EVENTS (200000 decrypts), ROWS (10000000 over 30 days).

# shellcheck source=scripts/env.sh
. "$(dirname "$0")/../scripts/env.sh"
need_postgres
# shellcheck source=scripts/cluster.sh
. "$ROOT/scripts/cluster.sh"

EVENTS=${EVENTS:-200000}
ROWS=${ROWS:-10000000}

say "the watch alone: a million accesses"
(cd "$ROOT/bench/watch" && CARGO_TARGET_DIR="$RUN/bench_watch_target" cargo build --release --quiet)
ALONE=$("$RUN/bench_watch_target/release/bench_watch")
part() { awk -v name="$1" '$1 == name { print $2 }' <<<"$ALONE"; }

say "a fresh cluster in $RUN/bench_watch"
cluster_start bench_watch <<'END'
shared_buffers = 1GB
max_wal_size = 16GB
checkpoint_timeout = 1h
watchllm_keys.max_active_keys = 0
watchllm_keys.max_accesses_per_minute = 100000
watchllm_keys.max_accesses_per_hour = 1000000000
watchllm_keys.max_accesses_per_day = 1000000000
watchllm_keys.max_distinct_keys_per_minute = 100000
END
trap 'cluster_remove bench_watch' EXIT
admin_psql() { cluster_psql -A -t -v ON_ERROR_STOP=1 -d postgres "$@"; }

admin_psql <"$ROOT/bench/watch.sql" >/dev/null
writer() { admin_psql -c 'SELECT writer_pid FROM watchllm.status()'; }
ticks() { awk '{ print $14 + $15 }' "/proc/$(writer)/stat"; }
events() { admin_psql -c 'SELECT events_written FROM watchllm.status()'; }

say "$EVENTS decrypts of 1000 keys by 16 clients"
BEFORE=$(ticks) FIRST=$(events)
printf '\\set n random(1, 1000)\nSELECT watchllm.decrypt_provider_key((SELECT id FROM bench_keys WHERE n = :n));\n' |
    as_runner tee "$CLUSTER/decrypt.sql" >/dev/null
as_runner "$SERVER/bin/pgbench" -n -M prepared -h "$SOCKET" -U postgres -c 16 -j 2 -t $((EVENTS / 16)) \
    -f "$CLUSTER/decrypt.sql" postgres >/dev/null
AFTER=$(ticks) LAST=$(events)
awk -v ticks=$((AFTER - BEFORE)) -v events=$((LAST - FIRST)) -v hz="$(getconf CLK_TCK)" -v hot="$(part judge_hot)" \
    -v cold="$(part judge_cold)" -v memory="$(part memory)" 'BEGIN {
    each = ticks * 1e9 / hz / events
    printf "writer: %.1f us of processor time an event; counting it: %.2f us (%.1f %% more than without), %.2f us when each\n", \
        each / 1e3, hot / 1e3, 100 * hot / (each - hot), cold / 1e3
    printf "access is of another caller and another of 50,000 keys. 50,000 keys at their limit, 10,000 callers: %.1f MiB\n", memory / 1048576
}'

say "$ROWS rows over 30 days"
admin_psql -v rows="$ROWS" <"$ROOT/bench/watch_rows.sql" >/dev/null
milliseconds() { admin_psql -c '\timing on' -c "$1" | sed -n 's/^Time: \([0-9.]*\).*/\1/p' | tail -n 1; }
PROJECT=$(admin_psql -c 'SELECT id FROM watchllm.projects LIMIT 1')
SUMMARY="SELECT count(*) FROM watchllm.provider_key_security_summary WHERE project_id = '$PROJECT'"
ANOMALIES="SELECT count(*) FROM watchllm.key_access_anomalies(now() - interval '1 hour')"
for again in 1 2 3; do
    printf 'provider_key_security_summary of a project of 1000 keys: %s ms; key_access_anomalies(last hour): %s ms\n' \
        "$(milliseconds "$SUMMARY")" "$(milliseconds "$ANOMALIES")"
done

say "a restart"
as_runner "$SERVER/bin/pg_ctl" -D "$DATA" -l "$CLUSTER/log" -s -w -m fast restart
printf 'first decrypt after a restart: %s ms\n' \
    "$(milliseconds 'SELECT length(watchllm.decrypt_provider_key((SELECT id FROM bench_keys WHERE n = 1)))')"
for _ in $(seq 600); do
    grep -q 'counters are filled from [0-9]\{4,\} rows' "$CLUSTER/log" && break
    sleep 0.2
done
sed -n "s/.*the watch's counters are filled/the counters are filled/p" "$CLUSTER/log" | tail -n 1
