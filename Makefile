# What setup installed comes first; a login shell's PATH is not needed.
export PATH := $(CURDIR)/target/tools/bin:$(PATH):$(HOME)/.cargo/bin

.PHONY: help setup demo test bench

help:
	@echo 'make setup  install what this machine lacks: PostgreSQL, PgBouncer, the diesel CLI, Chromium;'
	@echo '            and a second PgBouncer that tracks prepared statements, into target/'
	@echo 'make demo   the book server and its page on a stand-in for Neon, or on DATABASE_URL;'
	@echo '            PORT=3000 SUSPEND_AFTER=5s'
	@echo 'make test   all tests, on a stand-in for Neon'
	@echo 'make bench  this crate beside its peers, into docs/benchmarks.md, in a quarter of an hour on a quiet'
	@echo '            machine; SUITE=checkout,words for some;'
	@echo '            COMPARE=FILE, an earlier benchmarks.json: fails if a figure has got worse'

setup:
	@scripts/setup --for-tests

demo:
	@scripts/setup
	@scripts/demo

test: setup
	cargo test --all-features --no-fail-fast

bench:
	@scripts/setup --for-bench
	cargo run --release -p diesel-neon-bench
