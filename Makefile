# The verbs of this project. Needs Python 3.11+ and make, nothing else: no Redis, no root.
# `make` alone prints them.

SHELL := /bin/sh
PYTHON ?= python3
SECONDS ?=
ARGS ?=
BIN := .venv/bin

.PHONY: help run test test-slow test-redis test-browser check-alerts lint check types contracts clean \
	bench bench-peers bench-leader bench-push bench-sync bench-outage bench-evenness \
	bench-queueing bench-recovery bench-viewers fuzz audit licences

help:  ## print the verbs
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

run: .venv/run.stamp  ## run the whole system with simulated nodes and sessions (SECONDS=20: end by itself)
	@exec $(BIN)/python -m schedsite.demo $(if $(SECONDS),--seconds $(SECONDS))

test: .venv/dev.stamp  ## run the test suite, but for what has a verb of its own
	@$(BIN)/python -m pytest

test-browser: .venv/dev.stamp  ## test the operator pages in a browser (needs Debian's chromium; minutes)
	@$(BIN)/python -m pytest tests/browser

check-alerts:  ## check the Prometheus rules and their tests (needs promtool, of Debian's prometheus)
	@command -v promtool >/dev/null || { echo "promtool is missing: apt-get install prometheus" >&2; exit 1; }
	@promtool check rules docs/prometheus-rules.yml && promtool test rules docs/prometheus-rules-test.yml

test-slow: .venv/dev.stamp  ## run the tests that take a quarter of a minute or more each
	@$(BIN)/python -m pytest -m slow

test-redis: .venv/dev.stamp  ## test over Sentinel, Cluster and TLS (some minutes; TLS needs Debian's redis-server)
	@$(BIN)/python -m pytest tests/redis_forms

lint: .venv/dev.stamp  ## check style and formatting
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: .venv/dev.stamp  ## check types
	@SECRET_KEY=types-only $(BIN)/mypy registry pools routing schedsite bench tests/support

contracts: .venv/dev.stamp  ## check that imports go down the floors
	@$(BIN)/lint-imports import-contracts.ini

check: lint types contracts test  ## all of the above

bench: .venv/dev.stamp  ## measure dispatch beside its floors (12 minutes; ARGS=--quick for less, ARGS=--help for parts)
	@$(BIN)/python -m bench dispatch $(ARGS)

bench-peers: .venv/dev.stamp  ## measure Celery, Dramatiq, taskiq, SAQ, arq and BullMQ for comparison
	@$(BIN)/python -m bench peers $(ARGS)

bench-leader: .venv/dev.stamp  ## measure how long there is no leader (5 minutes; ARGS="--kills 5" for less)
	@$(BIN)/python -m bench leader $(ARGS)

bench-push: .venv/dev.stamp  ## measure how fast a published configuration is in force everywhere
	@$(BIN)/python -m bench push $(ARGS)

bench-sync: .venv/dev.stamp  ## measure what following 1,000 and 10,000 nodes costs
	@$(BIN)/python -m bench sync $(ARGS)

bench-outage: .venv/dev.stamp  ## measure work without a leader, and how soon it is back after Redis
	@$(BIN)/python -m bench outage $(ARGS)

bench-evenness: .venv/dev.stamp  ## measure how evenly bursts are spread over equal nodes
	@$(BIN)/python -m bench evenness $(ARGS)

bench-queueing: .venv/dev.stamp  ## measure freed slots, a flooded tenant's neighbour, and three times the load
	@$(BIN)/python -m bench queueing $(ARGS)

bench-recovery: .venv/dev.stamp  ## measure how soon work runs again after an instance or a node is lost
	@$(BIN)/python -m bench recovery $(ARGS)

bench-viewers: .venv/dev.stamp  ## measure what 0, 1 and 50 viewers of 5,000 nodes cost an instance
	@$(BIN)/python -m bench viewers $(ARGS)

fuzz: .venv/dev.stamp  ## send 100,000 broken frames and as many requests as it takes (an hour or so)
	@FUZZ_EXAMPLES=17000 $(BIN)/python -m pytest tests/sockets/test_random_frames.py tests/sockets/test_random_requests.py

audit: .venv/dev.stamp  ## ask the package index for known weaknesses of what is pinned
	@$(BIN)/pip-audit --require-hashes --disable-pip -r requirements.txt

licences: .venv/run.stamp  ## print the licences of what is installed to run it
	@$(BIN)/python -m docs.print_licences

clean:  ## remove the virtual environment and all data
	rm -rf .venv var .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

# uv installs in a second or two; where it cannot be had, pip does the same in twenty.
.venv/run.stamp: requirements.txt
	@sh .ci/venv "$(PYTHON)" requirements.txt && touch $@

.venv/dev.stamp: requirements-dev.txt
	@sh .ci/venv "$(PYTHON)" requirements-dev.txt && touch $@ .venv/run.stamp
