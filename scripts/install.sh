#!/usr/bin/env bash
# Installs into the system's PostgreSQL (PG_CONFIG, else pg_config of PATH). New files take the old
# names. A running server that preloads the library keeps its file until it is restarted. If the
# file were overwritten in place, the server would crash.

# shellcheck source=scripts/env.sh
. "$(dirname "$0")/env.sh"
need_postgres

am_root || have sudo || die "installing into the system's PostgreSQL needs root or sudo"
as_admin() { if am_root; then "$@"; else sudo "$@"; fi; }

replace() {
    as_admin install -m "$1" "$2" "$3.new.$$"
    as_admin mv -f "$3.new.$$" "$3"
}

lib=$("$PG_CONFIG" --pkglibdir) share=$("$PG_CONFIG" --sharedir)/extension
[ -f "$PACKAGE$lib/$EXTENSION.so" ] || die "nothing built yet: run 'make install', which builds first"
replace 755 "$PACKAGE$lib/$EXTENSION.so" "$lib/$EXTENSION.so"
for file in "$PACKAGE$share/$EXTENSION"*; do
    replace 644 "$file" "$share/${file##*/}"
done
cat <<END
Installed $EXTENSION $(extension_version) for PostgreSQL $PG_MAJOR. Now, in postgresql.conf:
    shared_preload_libraries = '$EXTENSION'
    $EXTENSION.master_key_file = '/path/to/a/file/only/the/server/can/read'
then restart the server, and in each database:
    CREATE EXTENSION $EXTENSION;  SELECT watchllm.install();
END
