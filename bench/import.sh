#!/usr/bin/env bash
# Measures import_watchllm_keys: rows a second, the backend's memory, the notices. The bound is what
# PBKDF2 alone allows one core, with the same implementation in the same run. A master key of
# 20,000,000 iterations is derived once after a server start, which takes as long as 200 rows. The
# second ratio counts processor time only, for machines that have other work too. Variable: ROWS
# (10000).

# shellcheck source=scripts/env.sh
. "$(dirname "$0")/../scripts/env.sh"
need_postgres
# shellcheck source=scripts/cluster.sh
. "$ROOT/scripts/cluster.sh"
have node || die "node is not installed: WebCrypto makes the rows"

ROWS=${ROWS:-10000}
SECRET=$(od -An -vtx1 -N32 /dev/urandom | tr -d ' \n')

say "a fresh cluster in $RUN/bench_import"
cluster_start bench_import <<'END'
max_wal_size = 8GB
checkpoint_timeout = 1h
watchllm_keys.audit_timeout = 60s
watchllm_keys.pbkdf2_iterations = 20000000
END
trap 'cluster_remove bench_import' EXIT
admin_psql() { cluster_psql -A -t -v ON_ERROR_STOP=1 "$@"; }

# Milliseconds of the first call after a server start, and the writer's processor time in hundredths
# of a second. They hold one derivation and a few milliseconds for the writer's start.
derivation() {
    as_runner "$SERVER/bin/pg_ctl" -D "$DATA" -l "$CLUSTER/log" -s -w restart
    admin_psql -d derive -c '\timing on' -c "SELECT watchllm.create_project('again')" | sed -n 's/^Time: \([0-9.]*\).*/\1/p'
    cut -d' ' -f14,15 "/proc/$(admin_psql -d derive -c 'SELECT writer_pid FROM watchllm.status()')/stat"
}

prepare() {
    admin_psql -d postgres -c 'CREATE DATABASE derive'
    admin_psql -d derive -c 'CREATE EXTENSION watchllm_keys' -c 'SELECT watchllm.install()' \
        -c "SELECT watchllm.create_project('first')" >/dev/null
    admin_psql -d postgres -c "ALTER SYSTEM SET watchllm_keys.pbkdf2_iterations = 600000" -c 'SELECT pg_reload_conf()' >/dev/null
    say "500 ciphertexts by WebCrypto, $ROWS rows of them"
    local keys
    keys=$(seq 500 | sed 's/.*/"sk-bench-&-0123456789abcdefghijklmnopqrstuvwxyz"/' | paste -sd,)
    admin_psql -d postgres -c 'CREATE TABLE sealed (encrypted_key text, encryption_iv text)'
    as_runner node --input-type=module - "{\"secret\":\"$SECRET\",\"keys\":[$keys]}" <"$ROOT/tests/import/webcrypto.mjs" |
        admin_psql -d postgres -c "COPY sealed FROM STDIN (DELIMITER ' ')"
    admin_psql -d postgres -v rows="$ROWS" <"$ROOT/bench/import.sql" >/dev/null
    (umask 077 && printf '%s\n' "$SECRET" >"$CLUSTER/old.secret")
    if am_root; then chown "$RUN_AS:" "$CLUSTER/old.secret"; fi
}

# Kilobytes (peak, own) and processor time before and after; between them the outcome and its time.
# Notices go to a file.
import() {
    cluster_psql -A -t -v ON_ERROR_STOP=1 -d postgres 2>"$CLUSTER/notices" <<END
SELECT pg_backend_pid() AS pid \gset
\setenv BACKEND :pid
SELECT count(*) FROM watchllm.status() \g /dev/null
\! sed -n 's/^\(VmHWM\|RssAnon\):[^0-9]*\([0-9]*\).*/\2/p' /proc/\$BACKEND/status | paste -sd' '
\! cut -d' ' -f14,15 /proc/\$BACKEND/stat
\timing on
SELECT string_agg(count || ' ' || outcome, ', ')
FROM (SELECT outcome, count(*) FROM watchllm.import_watchllm_keys('provider_keys', '$CLUSTER/old.secret') GROUP BY 1) o;
\timing off
\! sed -n 's/^\(VmHWM\|RssAnon\):[^0-9]*\([0-9]*\).*/\2/p' /proc/\$BACKEND/status | paste -sd' '
\! cut -d' ' -f14,15 /proc/\$BACKEND/stat
END
}

report() {
    awk -v rows="$ROWS" -v before="$BEFORE" -v after="$AFTER" -v notices="$NOTICES" -v json="$RUN/import.json" '
        function judge(what, measured, required,    holds) {
            holds = required == "" ? "" : (measured >= required) ? "ok" : "BELOW"
            printf "%-60s %9.2f %10s %s\n", what, measured, required == "" ? "" : ">= " required, holds
        }
        NR == 1 { peak = $1; own = $2 } NR == 2 { cpu = $1 + $2 } NR == 3 { outcome = $0 } NR == 4 { ms = $2 }
        NR == 5 { peak = $1 - peak; own = $2 - own } NR == 6 { cpu = $1 + $2 - cpu } NR == 9 { again = $0 } NR == 10 { again_ms = $2 }
        END {
            split(before, b, /[ \n]+/); split(after, a, /[ \n]+/)
            rate = rows / ms * 1000; bound = 400000 / (b[1] + a[1])
            cpu_rate = rows / cpu * 100; cpu_bound = 40000 / (b[2] + b[3] + a[2] + a[3])
            printf "\nimport of %d rows: %s\n", rows, outcome
            printf "%.1f rows/s; PBKDF2 alone on one core %.1f/s (%.1f before, %.1f after)\n", rate, bound, 200000 / b[1], 200000 / a[1]
            judge("rows/s / PBKDF2-bound rate of one core", rate / bound, "0.8")
            judge("the same by processor time", cpu_rate / cpu_bound, "")
            printf "memory of the backend: peak %+d kB (with shared buffers it touched), its own %+d kB; %d notices\n", peak, own, notices
            printf "again: %s, in %.0f ms\n", again, again_ms
            printf "{\"rows\": %d, \"rows_a_second\": %.1f, \"pbkdf2_a_second\": %.1f, \"ratio\": %.3f, \"ratio_by_processor_time\": %.3f, \"required\": \">= 0.8\", \"peak_kb\": %d, \"own_kb\": %d, \"notices\": %d, \"again_ms\": %.0f}\n",
                rows, rate, bound, rate / bound, cpu_rate / cpu_bound, peak, own, notices, again_ms > json
        }' "$1"
}

prepare
say "PBKDF2 alone, the import, the import again, PBKDF2 alone"
BEFORE=$(derivation)
import >"$CLUSTER/results"
NOTICES=$(grep -c 'NOTICE:  import:' "$CLUSTER/notices" || true)
import >>"$CLUSTER/results"
AFTER=$(derivation)
report "$CLUSTER/results"
printf '\nwritten to %s\n' "$RUN/import.json"
