#!/usr/bin/env bash
# All tests: pure unit tests, house rules, and the cluster tests on servers of the private tree.
# Arguments go to cargo test (`scripts/test.sh --test cluster crash`).

# shellcheck source=scripts/env.sh
. "$(dirname "$0")/env.sh"
need_postgres
[ -x "$SERVER/bin/postgres" ] || die "no private server tree yet: run 'make test', which builds it"

# Ends a pooler or PostgREST of a killed run by its pid, and only if that is still such a process.
end_what_stood_before() { # directory
    local file pid
    for file in "$1"/postgrest.pid "$1"/pgbouncer.pid; do
        [ -f "$file" ] || continue
        pid=$(cat "$file")
        case "$(cat "/proc/$pid/comm" 2>/dev/null)" in postgrest | pgbouncer) kill "$pid" || true ;; esac
    done
}

# Removes what a killed run left behind. Directories are named after the process that made them.
sweep() {
    local directory pid
    for directory in "$RUN"/clusters/*-*; do
        [ -d "$directory" ] || continue
        pid=${directory##*/} pid=${pid%%-*}
        case "$pid" in '' | *[!0-9]*) continue ;; esac
        if [ -d "/proc/$pid" ]; then continue; fi
        end_what_stood_before "$directory"
        [ ! -f "$directory/data/postmaster.pid" ] ||
            as_runner "$SERVER/bin/pg_ctl" -D "$directory/data" -m immediate -s stop || true
        rm -rf "$directory"
    done
}

sweep
cd "$ROOT"
WATCHLLM_NODE_MODULES=$("$ROOT/scripts/node_modules.sh")
export WATCHLLM_NODE_MODULES WATCHLLM_SERVER="$SERVER" CARGO_TARGET_DIR="$TESTS_TARGET"
# each server has some ten processes, so more than four servers at a time only make waits longer
export RUST_TEST_THREADS="${RUST_TEST_THREADS:-4}"
cargo test --workspace --no-fail-fast ${CI:+--locked} "${CARGO_FEATURES[@]}" "$@"
