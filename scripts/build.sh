#!/usr/bin/env bash
# Builds the extension and assembles a private copy of PostgreSQL around it. So demo, tests and
# bench never touch the system's PostgreSQL, and need no root. PostgreSQL finds share/ and lib/
# relative to the real place of its executable.

# shellcheck source=scripts/env.sh
. "$(dirname "$0")/env.sh"
need_postgres

# One build at a time per target directory.
mkdir -p "$TARGET"
exec 9>"$TARGET/.build.lock"
flock 9

package() {
    say "building the extension for PostgreSQL $PG_MAJOR"
    rm -rf "$PACKAGE"
    # in CI the lock file decides, as in the tests
    [ -z "${CI:-}" ] || export PGRX_BUILD_FLAGS="--locked"
    cd "$ROOT"
    CARGO_TARGET_DIR=$EXTENSION_TARGET cargo pgrx package --profile "$PROFILE" --pg-config "$PG_CONFIG" "${CARGO_FEATURES[@]}" --out-dir "$PACKAGE"
}

# The longest common parent directory: /usr for Debian's layout, the installation's own for others.
common_prefix() {
    local prefix=$1 path
    for path in "$@"; do
        while [ "${path#"$prefix"/}" = "$path" ]; do prefix=${prefix%/*}; done
    done
    printf '%s\n' "$prefix"
}

# A new file under the old name: a running server keeps the file it has mapped.
replace() {
    install -m "$1" "$2" "$3.new.$$"
    mv -f "$3.new.$$" "$3"
}

copy_postgres() {
    local bin=$1 lib=$2 share=$3 stamp
    # a module that was installed since then changes the directory's time
    stamp="2 $("$PG_CONFIG" --version) $(stat -c '%s %Y' "$("$PG_CONFIG" --bindir)/postgres")"
    stamp+=" $("$PG_CONFIG" --pkglibdir) $(stat -c %Y "$("$PG_CONFIG" --pkglibdir)")"
    [ "$(cat "$SERVER/.copied" 2>/dev/null)" = "$stamp" ] && return
    say "copying PostgreSQL $PG_MAJOR to $SERVER"
    rm -rf "$SERVER"
    mkdir -p "$bin" "$lib" "$share"
    cp -RL --reflink=auto "$("$PG_CONFIG" --bindir)/." "$bin"
    # bitcode serves only inlining by the just-in-time compiler, and is most of the bytes
    (cd "$("$PG_CONFIG" --pkglibdir)" && find . -path ./bitcode -prune -o -path ./pgxs -prune -o -type f -print0 -o -type l -print0) |
        (cd "$("$PG_CONFIG" --pkglibdir)" && xargs -0 cp -RL --reflink=auto --parents -t "$lib")
    (cd "$("$PG_CONFIG" --sharedir)" && cp -RL --reflink=auto extension timezonesets tsearch_data ./*.* "$share")
    [ ! -d "$("$PG_CONFIG" --sharedir)/timezone" ] || cp -RL --reflink=auto "$("$PG_CONFIG" --sharedir)/timezone" "$share"
    copy_messages
    # a short path in every layout (PostgreSQL resolves links before it looks around)
    [ -e "$SERVER/bin" ] || ln -s "${bin#"$SERVER"/}" "$SERVER/bin"
    rm -f "$lib/$EXTENSION"*.so "$share/extension/$EXTENSION"[.-]*
    chmod -R go+rX "$SERVER"
    printf '%s\n' "$stamp" >"$SERVER/.copied"
}

# The server's messages in other languages, which tests read. PostgreSQL looks for them beside its
# executable, as far as in its own layout.
copy_messages() {
    local bin locales prefix
    bin=$("$PG_CONFIG" --bindir) locales=$("$PG_CONFIG" --localedir)
    [ -d "$locales" ] || return 0
    prefix=$(common_prefix "$bin" "$("$PG_CONFIG" --pkglibdir)" "$("$PG_CONFIG" --sharedir)")
    mkdir -p "$SERVER${locales#"$prefix"}"
    (cd "$locales" && find . \( -name "postgres-$PG_MAJOR.mo" -o -name "plpgsql-$PG_MAJOR.mo" \) -print0 |
        xargs -0 -r cp -L --parents -t "$SERVER${locales#"$prefix"}")
}

assemble() {
    local prefix bin lib share file
    bin=$("$PG_CONFIG" --bindir) lib=$("$PG_CONFIG" --pkglibdir) share=$("$PG_CONFIG" --sharedir)
    prefix=$(common_prefix "$bin" "$lib" "$share")
    copy_postgres "$SERVER${bin#"$prefix"}" "$SERVER${lib#"$prefix"}" "$SERVER${share#"$prefix"}"
    replace 755 "$PACKAGE$lib/$EXTENSION.so" "$SERVER${lib#"$prefix"}/$EXTENSION.so"
    for file in "$PACKAGE$share/extension/$EXTENSION"*; do
        replace 644 "$file" "$SERVER${share#"$prefix"}/extension/${file##*/}"
    done
    "$SERVER/bin/postgres" --version >/dev/null
}

package
assemble
