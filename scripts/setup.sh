#!/usr/bin/env bash
# Installs what is missing to build, run and test on Debian and Ubuntu: a C compiler, libclang,
# PostgreSQL with its server headers, cargo-pgrx. Rust and git are there already. Changes nothing
# that is there; a second run does nothing. `setup.sh lint` also gets what only the linters need: a
# Python that can make virtual environments. `setup.sh tests` also gets what only the tests need:
# Node.js, npm, pgbouncer and Python.

# shellcheck source=scripts/env.sh
. "$(dirname "$0")/env.sh"
WANTED=${1:-}

as_admin() {
    if am_root; then "$@"; elif have sudo; then sudo "$@"; else die "this needs root or sudo: $*"; fi
}

apt_get() {
    as_admin env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends --no-upgrade "$@"
}

libclang_found() {
    [ -n "${LIBCLANG_PATH:-}" ] || compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' >/dev/null ||
        ldconfig -p 2>/dev/null | grep 'libclang.*\.so' >/dev/null
}

missing_tools() {
    have cc && have make || echo build-essential
    have pkg-config || echo pkg-config
    libclang_found || echo libclang-dev
    { ! am_root || have runuser; } || echo util-linux
    [ "$WANTED" != lint ] || python3 -c 'import ensurepip, venv' 2>/dev/null || printf '%s\n' python3 python3-venv
    [ "$WANTED" != tests ] || have node || echo nodejs
    [ "$WANTED" != tests ] || have npm || echo npm
    [ "$WANTED" != tests ] || have python3 || echo python3
}

pooler_found() { [ "$WANTED" != tests ] || have pgbouncer; }

# Files that exist only during the installation.
FOR_NOW=()
# shellcheck disable=SC2317,SC2329
remove_for_now() { [ ${#FOR_NOW[@]} = 0 ] || as_admin rm -f "${FOR_NOW[@]}"; }
trap remove_for_now EXIT

# 15, unless another major was asked for. If 15 is not packaged, the newest that is.
packaged_major() {
    local major
    for major in ${PG_MAJOR:-15 18 17 16}; do
        # not grep -q: it leaves at the first match, and under pipefail the writer's SIGPIPE would
        # count as "no such package"
        if apt-cache policy "postgresql-server-dev-$major" | grep 'Candidate: [^(]' >/dev/null; then
            echo "$major"
            return
        fi
    done
    die "no package of PostgreSQL ${PG_MAJOR:-15 to 18} here: install one with its server headers and set PG_CONFIG"
}

# Debian's package creates and starts a cluster, which we do not need. The marker that prevents it
# is removed at the end.
install_postgres() {
    local major marker=/etc/postgresql-common/createcluster.d/watchllm_keys.conf
    major=$(packaged_major)
    if ! have pg_createcluster; then
        apt_get install postgresql-common
        as_admin mkdir -p "$(dirname "$marker")"
        FOR_NOW+=("$marker")
        echo 'create_main_cluster = false' | as_admin tee "$marker" >/dev/null
    fi
    apt_get_new "postgresql-$major" "postgresql-server-dev-$major"
}

# Installs what is missing of these packages of PostgreSQL. One that is there stays at its version,
# and the others come in that version too: somebody's server must not change or restart.
apt_get_new() {
    local package version there='' wanted=() changes
    for package in "$@"; do
        version=$(dpkg-query -W -f '${db:Status-Status} ${Version}' "$package" 2>/dev/null || true)
        case "$version" in "installed "*) there=${version#installed } ;; *) wanted+=("$package") ;; esac
    done
    [ ${#wanted[@]} != 0 ] || return 0
    changes=$(apt-get -s install --no-install-recommends "${wanted[@]/%/${there:+=$there}}" 2>&1) ||
        die "these cannot be installed beside PostgreSQL $there: ${wanted[*]}. Install them yourself, or set PG_CONFIG: $changes"
    # "Inst name [installed version] (new version …" is an upgrade
    if grep -E '^Inst (postgresql|libpq)[^ ]* \[' <<<"$changes" >&2; then
        die "installing ${wanted[*]} would upgrade the PostgreSQL that is there: do it yourself, or set PG_CONFIG"
    fi
    apt_get install "${wanted[@]/%/${there:+=$there}}"
}

# Debian's package starts a pooler, now and at every boot. The tests start their own, so it must do
# neither.
install_pgbouncer() {
    local policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        FOR_NOW+=("$policy")
        printf '#!/bin/sh\nexit 101\n' | as_admin tee "$policy" >/dev/null
        as_admin chmod 755 "$policy"
    fi
    apt_get install pgbouncer
    as_admin update-rc.d pgbouncer disable >/dev/null 2>&1 || true
}

install_packages() {
    local missing
    mapfile -t missing < <(missing_tools)
    if [ ${#missing[@]} = 0 ] && find_pg_config >/dev/null && pooler_found; then
        return
    fi
    [ -z "${PG_CONFIG:-}" ] || find_pg_config >/dev/null ||
        die "PG_CONFIG=$PG_CONFIG is no pg_config of PostgreSQL ${PG_MAJOR:-15 to 18} with a server and its headers"
    have apt-get || die "install these, then again: ${missing[*]}$(pooler_found || printf ' pgbouncer') PostgreSQL 15 to 18 with server headers and contrib"
    say "installing with apt-get: ${missing[*]}$(find_pg_config >/dev/null || printf ' PostgreSQL')$(pooler_found || printf ' pgbouncer')"
    apt_get update
    [ ${#missing[@]} = 0 ] || apt_get install "${missing[@]}"
    find_pg_config >/dev/null || install_postgres
    pooler_found || install_pgbouncer
}

install_cargo_pgrx() {
    local wanted
    wanted=$(pgrx_version)
    have cargo || die "no cargo: install Rust first (rustup)"
    if [ "$(cargo pgrx --version 2>/dev/null)" != "cargo-pgrx $wanted" ]; then
        say "installing cargo-pgrx $wanted (a minute or two)"
        # It runs for seconds per build. Optimising it would take two thirds of its own build time.
        env -u CARGO_TARGET_DIR CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=off \
            CARGO_PROFILE_RELEASE_DEBUG=false CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
            cargo install --locked cargo-pgrx --version "=$wanted"
    fi
}

# --no-run: otherwise pgrx creates a cluster, which root may not.
configure_pgrx() {
    if ! grep -qs "^pg$PG_MAJOR *=" "${PGRX_HOME:-$HOME/.pgrx}/config.toml"; then
        say "cargo pgrx init for PostgreSQL $PG_MAJOR"
        env -u PGRX_PG_CONFIG_PATH cargo pgrx init --no-run "--pg$PG_MAJOR" "$PG_CONFIG"
    fi
}

install_packages
need_postgres
install_cargo_pgrx
configure_pgrx
# the package has just made the user postgres, or not: the tests want its contrib modules
[ -f "$("$PG_CONFIG" --pkglibdir)/pgcrypto.so" ] ||
    die "PostgreSQL $PG_MAJOR lacks its contrib modules (pgcrypto, pg_stat_statements, test_decoding): install postgresql-contrib"
