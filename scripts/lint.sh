#!/usr/bin/env bash
# Format, clippy with warnings as errors, licences and advisories, shell, pgspot on our SQL. Tools
# that are not installed are named, not skipped silently.

# shellcheck source=scripts/env.sh
. "$(dirname "$0")/env.sh"
need_postgres
cd "$ROOT"
export CARGO_TARGET_DIR="$TESTS_TARGET"

for part in fmt clippy; do
    cargo "$part" --version >/dev/null 2>&1 ||
        { have rustup && rustup component add "$([ "$part" = fmt ] && echo rustfmt || echo "$part")"; } ||
        die "cargo $part is not installed"
done

say "cargo fmt --all --check"
cargo fmt --all --check
say "cargo clippy"
cargo clippy ${CI:+--locked} --workspace --all-targets "${CARGO_FEATURES[@]}" -- -D warnings

if cargo deny --version >/dev/null 2>&1; then
    say "cargo deny"
    cargo deny check
else
    say "cargo deny: skipped, cargo-deny is not installed"
fi

if have shellcheck; then
    say "shellcheck"
    shellcheck -x scripts/*.sh bench/*.sh .ci/run
else
    say "shellcheck: skipped, not installed (bash -n instead)"
    for file in scripts/*.sh bench/*.sh .ci/run; do bash -n "$file"; done
fi

# Names and operators that others could put in the way of our SQL. Pinned, in a virtual environment
# of its own.
PGSPOT=pgspot==0.9.4 PGLAST=pglast==7.21
install_pgspot() {
    local home=$TARGET/pgspot
    PATH_TO_PGSPOT=$home/bin/pgspot
    [ "$(cat "$home/.installed" 2>/dev/null)" = "$PGSPOT $PGLAST" ] && return
    rm -rf "$home"
    python3 -m venv "$home" || return 1
    "$home/bin/pip" install -q --disable-pip-version-check --no-input "$PGSPOT" "$PGLAST" || return 1
    printf '%s\n' "$PGSPOT $PGLAST" >"$home/.installed"
}

# Runs pgspot on a file as install() runs it: its function has this search_path, and so has every
# caller of sql/installed.sql.
spot_installed() { # file [argument…]
    local file=$1
    shift
    printf 'SET search_path TO pg_catalog, pg_temp;\n' | cat - "$file" | "$PATH_TO_PGSPOT" "$@"
}

spot() {
    local sql file
    sql=$PACKAGE$("$PG_CONFIG" --sharedir)/extension/$EXTENSION--$(extension_version).sql
    # the script as CREATE EXTENSION gets it
    CARGO_TARGET_DIR=$TARGET "$ROOT/scripts/build.sh"
    # pgspot cannot read a body in SQL's own syntax (RETURN …), so it gets the same body in quotes
    # counts_as() has no SET, which would keep the planner from inlining it. Its body is resolved once,
    # when CREATE EXTENSION makes it, so no later search_path reaches it.
    sed '/^CREATE FUNCTION watchllm.counts_as(/,/^ *END;$/d' "$sql" |
        sed -z 's/\nRETURN \([^;]*\);\n/\nAS $body$ SELECT \1 $body$;\n/g' |
        "$PATH_TO_PGSPOT" || die "pgspot: findings in $sql"
    for file in sql/*.sql sql/migrations/*.sql; do
        case "$file" in
        sql/roles.sql | sql/functions.sql | sql/anomalies.sql | sql/own_past.sql | sql/rotation.sql | sql/redact.sql | sql/function_grants.sql) ;; # parts of that script
        # PS015: another role's view of that name would stay theirs. preflight.sql refuses it, and
        # views.sql gives ours to watchllm_owner.
        sql/views.sql | sql/trail.sql) spot_installed "$file" --ignore PS015 || die "pgspot: findings in $file" ;;
        *) spot_installed "$file" || die "pgspot: findings in $file" ;;
        esac
    done
    # a lint that cannot fail proves nothing
    if echo "SELECT 1 FROM pg_catalog.pg_class WHERE oid = '1'::pg_catalog.regclass" | "$PATH_TO_PGSPOT" >/dev/null; then
        die "pgspot finds nothing in SQL with a finding"
    fi
}

if install_pgspot; then
    say "pgspot"
    spot
else
    say "pgspot: skipped, python3 with venv or the packages $PGSPOT and $PGLAST are not to be had"
fi
