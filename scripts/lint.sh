#!/usr/bin/env bash
# Format, clippy with warnings as errors, licences and advisories, shell. What is not installed is named, not hidden.

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

say "cargo fmt --check"
cargo fmt --check
say "cargo clippy"
cargo clippy ${CI:+--locked} --all-targets "${CARGO_FEATURES[@]}" -- -D warnings

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
