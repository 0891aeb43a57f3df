# shellcheck shell=bash
# Where things are: sourced by every other script. Nothing here changes anything but the run directory's existence.
# What a person may set: PG_CONFIG, PG_MAJOR, CARGO_TARGET_DIR, WATCHLLM_RUN_AS (who runs servers when make runs as root).

set -euo pipefail
umask 022

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
EXTENSION=watchllm_keys

say() { printf '\033[1m== %s\033[0m\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }
am_root() { [ "$(id -u)" = 0 ]; }
have() { command -v "$1" >/dev/null 2>&1; }

# rustup and cargo put their programs here; a shell that has just installed them has no PATH to them yet
# Debian leaves the sbin directories out of an ordinary user's PATH
PATH="${CARGO_HOME:-${HOME:-/nonexistent}/.cargo}/bin:$PATH:/usr/sbin:/sbin"
export PATH

# One source of truth for the version of pgrx: Cargo.toml.
pgrx_version() { sed -n 's/^pgrx = .*"=\([0-9.]*\)".*/\1/p' "$ROOT/Cargo.toml"; }
extension_version() { sed -n 's/^version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml" | head -n 1; }

# --- which PostgreSQL --------------------------------------------------------------------------------------------------

# A pg_config is useful only with a server and its headers beside it (libpq-dev ships one without
# either).
usable_pg_config() {
    local version major
    [ -x "$1" ] && version=$("$1" --version 2>/dev/null) || return 1
    major=${version#PostgreSQL }
    major=${major%%[^0-9]*}
    case "$major" in 15 | 16 | 17 | 18) ;; *) return 1 ;; esac
    [ -z "${PG_MAJOR:-}" ] || [ "$PG_MAJOR" = "$major" ] || return 1
    [ -x "$("$1" --bindir)/postgres" ] && [ -f "$("$1" --includedir-server)/postgres.h" ]
}

# The requested one; else the first of PATH; else where Debian's and PGDG's packages put theirs.
find_pg_config() {
    local candidate
    if [ -n "${PG_CONFIG:-}" ]; then
        candidate=$(command -v "$PG_CONFIG" || true)
        usable_pg_config "$candidate" || return 1
        printf '%s\n' "$candidate"
        return
    fi
    for candidate in "$(command -v pg_config || true)" \
        /usr/lib/postgresql/{15,18,17,16}/bin/pg_config /usr/pgsql-{15,18,17,16}/bin/pg_config; do
        if usable_pg_config "$candidate"; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    return 1
}

need_postgres() {
    local version
    PG_CONFIG=$(find_pg_config) || die "no PostgreSQL 15 to 18 with server headers found: run 'make setup' (or set PG_CONFIG)"
    version=$("$PG_CONFIG" --version)
    version=${version#PostgreSQL }
    PG_MAJOR=${version%%[^0-9]*}
    # pgrx takes exactly this one, whatever its own configuration holds
    export PG_CONFIG PG_MAJOR PGRX_PG_CONFIG_PATH="$PG_CONFIG"
    CARGO_FEATURES=(--no-default-features --features "pg$PG_MAJOR")
    SERVER="$RUN/server-pg$PG_MAJOR"
    PACKAGE="$TARGET/package-pg$PG_MAJOR"
}

# --- where things are built ------------------------------------------------------------------------------------------------

# CI builds outside the checkout, people inside it.
if [ -n "${CARGO_TARGET_DIR:-}" ]; then
    case "$CARGO_TARGET_DIR" in
    /*) TARGET=$CARGO_TARGET_DIR ;;
    *) TARGET=$ROOT/$CARGO_TARGET_DIR ;;
    esac
elif [ -n "${CI:-}" ]; then
    TARGET=${XDG_CACHE_HOME:-${HOME:?HOME is not set}/.cache}/$EXTENSION/target
else
    TARGET=$ROOT/target
fi
# cargo pgrx and plain cargo pass different linker flags and would rebuild everything in turn. So
# each has a directory.
EXTENSION_TARGET=$TARGET/extension
TESTS_TARGET=$TARGET/tests

# The profile of Cargo.toml for building the extension. demo builds in minutes, release is what is
# shipped.
PROFILE=${WATCHLLM_PROFILE:-release}

# --- who runs servers, and where -----------------------------------------------------------------------------------------

# PostgreSQL refuses to run as root: then servers and their clients run as an ordinary user.
RUN_AS=$(id -un)
if am_root; then
    RUN_AS=${WATCHLLM_RUN_AS:-}
    if [ -z "$RUN_AS" ]; then
        if id postgres >/dev/null 2>&1; then RUN_AS=postgres; else RUN_AS=nobody; fi
    fi
    id "$RUN_AS" >/dev/null 2>&1 || die "there is no user '$RUN_AS' to run servers as"
fi
export WATCHLLM_RUN_AS="$RUN_AS"

# Runs a command as that user. No secrets travel here; the caller's PG* variables would point
# clients elsewhere.
as_runner() {
    local clean=(env -u RUST_BACKTRACE -u PGHOST -u PGHOSTADDR -u PGPORT -u PGDATABASE -u PGUSER -u PGPASSWORD
        -u PGOPTIONS -u PGSERVICE -u PGDATA LC_ALL=C)
    if am_root; then
        (cd / && exec runuser -u "$RUN_AS" -- "${clean[@]}" "$@")
    else
        "${clean[@]}" "$@"
    fi
}

# A directory in a place where others can write. It must be ours: nobody else may have made it
# before.
safe_directory() {
    mkdir -m 0755 "$1" 2>/dev/null || true
    [ -d "$1" ] && [ ! -L "$1" ] && [ "$(stat -c %u "$1")" = "$(id -u)" ] ||
        die "$1 exists and is not a directory of $(id -un)'s: remove it"
    chmod 0755 "$1"
}

# The run directory holds the private server tree, demo, test clusters and results. The user who
# runs servers must be able to reach it, and cannot reach a checkout under /root.
choose_run_directory() {
    RUN=$TARGET/run
    mkdir -p "$RUN"
    if am_root && ! runuser -u "$RUN_AS" -- test -x "$RUN" 2>/dev/null; then
        rmdir "$RUN" 2>/dev/null || true
        local base=${TMPDIR:-/tmp}
        runuser -u "$RUN_AS" -- test -x "$base" 2>/dev/null || base=/tmp
        RUN=$base/$EXTENSION.$(id -u)
        safe_directory "$RUN"
    fi
}
choose_run_directory
