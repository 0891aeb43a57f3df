#!/usr/bin/env bash
# A throw-away cluster with a vault in it: `demo.sh start` makes it anew, tells demo.sql's story and leaves it running;
# `demo.sh stop` stops and removes it. Nothing else on the machine is touched.

# shellcheck source=scripts/env.sh
. "$(dirname "$0")/env.sh"

case "${1:-start}" in
start)
    need_postgres
    # shellcheck source=scripts/cluster.sh
    . "$ROOT/scripts/cluster.sh"
    say "a fresh cluster in $RUN/demo"
    cluster_start demo </dev/null
    cluster_psql -d postgres -c 'CREATE DATABASE demo'
    # read here and piped: the user who runs psql need not see the checkout
    cluster_psql -d demo -v ON_ERROR_STOP=1 <"$ROOT/scripts/demo.sql"
    printf '\nThe demo keeps running. To look around (make demo-stop removes it):\n\n    %s\n\n' "$(cluster_psql_line demo)"
    ;;
stop)
    # without a server tree there is no demo
    if [ -d "$RUN/demo" ]; then
        need_postgres
        # shellcheck source=scripts/cluster.sh
        . "$ROOT/scripts/cluster.sh"
        cluster_remove demo
        say "demo stopped and removed"
    else
        say "no demo to stop"
    fi
    ;;
*) die "usage: demo.sh start|stop" ;;
esac
