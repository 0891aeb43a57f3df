# make setup | demo | demo-stop | test | bench | lint | install | clean
# Works as root and as an ordinary user. Variables: PG_MAJOR (15; 16 to 18 are not tried yet),
# PG_CONFIG, CARGO_TARGET_DIR; for bench ROUNDS and SECONDS.
# Every step is a script in scripts/, so that it can be read and run without make.

.PHONY: help setup setup-tests build demo demo-stop test bench lint install clean
export PG_MAJOR PG_CONFIG

help:
	@sed -n '1,4s/^# //p' Makefile

# what is missing on a fresh Debian or Ubuntu with Rust and git (apt-get only when something is)
setup:
	@scripts/setup.sh

# what only the tests want: Node.js and npm for a real PostgREST, pgbouncer, Python for the drawing of rooms
setup-tests:
	@scripts/setup.sh tests

# the extension, in a private copy of PostgreSQL that needs no root and touches no other server
build: setup
	@scripts/build.sh

# a throw-away cluster, the story of a key told in psql, and what to try next; built by the profile that is ready soonest
demo: setup
	@WATCHLLM_PROFILE=demo scripts/build.sh
	@scripts/demo.sh start

demo-stop:
	@scripts/demo.sh stop

test: setup-tests build
	@scripts/test.sh

bench: build
	@ROUNDS="$(or $(ROUNDS),3)" BENCH_SECONDS="$(or $(SECONDS),3)" bench/run.sh

lint:
	@scripts/setup.sh lint
	@scripts/lint.sh

# into the system's PostgreSQL, with sudo when not root
install: build
	@scripts/install.sh

clean:
	@scripts/clean.sh
