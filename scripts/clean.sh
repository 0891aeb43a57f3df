#!/usr/bin/env bash
# Removes what make has made: the demo, the run directory, both target directories.

# shellcheck source=scripts/env.sh
. "$(dirname "$0")/env.sh"

"$ROOT/scripts/demo.sh" stop
rm -rf "$RUN" "$EXTENSION_TARGET" "$TESTS_TARGET" "$TARGET"/package-pg* "$TARGET/.build.lock"
rmdir "$TARGET" 2>/dev/null || true
