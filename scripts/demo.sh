#!/usr/bin/env bash
# A throw-away cluster with a vault in it. `demo.sh start` makes it anew, tells demo.sql's story and
# leaves it running. `demo.sh stop` stops and removes it. Nothing else on the machine is touched.

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
    cat <<END

That was the demo; its server keeps running. Look around:

    $(cluster_psql_line demo)

Three things to try there:

    SELECT * FROM watchllm.security_check() WHERE NOT ok;      -- what the doctor would mend
    SELECT watchllm.redact('OPENAI_API_KEY=sk-fake-demo-key-0006-not-a-real-key-uvwx');
    SELECT seq, access_type, failure_reason, session_role FROM watchllm.provider_key_access_logs ORDER BY seq;

make demo-stop removes it. How to call it from an application: docs/app.md
END
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
