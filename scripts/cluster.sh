# shellcheck shell=bash
# A throw-away cluster of the private tree, for demo and bench: made, started, stopped, removed. Sourced after env.sh and
# need_postgres. Only on a unix socket, whose directory lies under /tmp: its path may not pass 107 bytes.

cluster_paths() { # name
    CLUSTER=$RUN/$1
    DATA=$CLUSTER/data
    [ -x "$SERVER/bin/postgres" ] || die "no private server tree yet: run 'make build'"
}

# Only what we made: our directory, and the postmaster that its own pid file names.
cluster_remove() { # name
    cluster_paths "$1"
    [ -d "$CLUSTER" ] || return 0
    if [ -f "$DATA/postmaster.pid" ]; then
        as_runner "$SERVER/bin/pg_ctl" -D "$DATA" -m fast -s stop ||
            as_runner "$SERVER/bin/pg_ctl" -D "$DATA" -m immediate -s stop || true
    fi
    if [ -f "$CLUSTER/socket" ]; then rm -rf "$(cat "$CLUSTER/socket")"; fi
    rm -rf "$CLUSTER"
}

# A fresh cluster with the library preloaded and a master key of its own. More settings come on
# stdin.
cluster_start() { # name
    cluster_remove "$1"
    mkdir -p "$CLUSTER"
    SOCKET=$(mktemp -d /tmp/wk.XXXXXX)
    printf '%s\n' "$SOCKET" >"$CLUSTER/socket"
    # trust authentication behind this door: only the user who runs the server may pass it
    chmod 0700 "$SOCKET"
    (umask 077 && printf '1:%s\n' "$(od -An -vtx1 -N32 /dev/urandom | tr -d ' \n')" >"$CLUSTER/master.keys")
    if am_root; then chown "$RUN_AS:" "$CLUSTER" "$SOCKET" "$CLUSTER/master.keys"; fi
    as_runner "$SERVER/bin/initdb" -D "$DATA" -U postgres -A trust -E UTF8 --locale=C >"$CLUSTER/initdb.log" 2>&1 ||
        { cat "$CLUSTER/initdb.log" >&2 && die "initdb failed"; }
    {
        cat <<END
listen_addresses = ''
unix_socket_directories = '$SOCKET'
unix_socket_permissions = 0700
shared_preload_libraries = '$EXTENSION'
$EXTENSION.master_key_file = '$CLUSTER/master.keys'
cluster_name = 'watchllm_keys $1'
log_line_prefix = '%m [%p] %b '
END
        cat
    } | as_runner tee -a "$DATA/postgresql.conf" >/dev/null
    as_runner "$SERVER/bin/pg_ctl" -D "$DATA" -l "$CLUSTER/log" -s -w start ||
        { tail -n 20 "$CLUSTER/log" >&2 && die "the server did not start"; }
}

cluster_psql() { as_runner "$SERVER/bin/psql" -X -q -h "$SOCKET" -U postgres "$@"; }

# The line to type oneself; as root it changes the user as we do.
cluster_psql_line() { # database
    local line="$SERVER/bin/psql -h $SOCKET -U postgres $1"
    if am_root; then line="cd / && runuser -u $RUN_AS -- $line"; fi
    printf '%s\n' "$line"
}
