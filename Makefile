# Two commands do all the set-up: `make run` starts a broker, `make test` runs every test. `make help` lists the rest.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

.DEFAULT_GOAL := help

.PHONY: help
help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

# The environments are rebuilt when the pinned requirements change, and only then.
$(VENV)/.installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	KPY_NATIVE=0 $(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# The accelerator is compiled when its sources change. KPY_NATIVE is asked as it is by an install: 0 leaves it out.
$(VENV)/.native: $(VENV)/.installed $(wildcard protocol/native*)
	@$(BIN)/python -m protocol.native --as-asked
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.lock | $(VENV)/.native
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

.PHONY: run
run: $(VENV)/.native  ## start a broker on localhost:9092 (ARGS="--listen host:port ..." to change it)
	@$(BIN)/kpy start $(ARGS)

# Many tests wait more than they compute, so three files at once keep two cores busy. ARGS="-n 0" runs one by one.
.PHONY: test
test: $(VENV)/.installed-dev  ## run all tests, with every client whose toolchain is here
	$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

.PHONY: client-suites
client-suites: $(VENV)/.installed-dev  ## run clients' own tests, those too that take ten minutes (needs Cargo, Go, a C and C++ compiler, a JDK)
	KPY_CLIENT_SUITES=1 $(BIN)/pytest compat/suites $(ARGS)

.PHONY: check
check: $(VENV)/.installed-dev  ## format, lint, types, layers, generated code
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m protocol.generate --check

.PHONY: generate
generate: $(VENV)/.installed-dev  ## write kpy/wire/ anew from protocol/
	$(BIN)/python -m protocol.generate

.PHONY: native
native: $(VENV)/.installed  ## compile the accelerator, or say why that does not work (ARGS=--remove takes it away)
	$(BIN)/python -m protocol.native $(ARGS)

.PHONY: bench
bench: $(VENV)/.installed-dev  ## measure kpy beside Apache Kafka (ROWS=latency,produce; needs a JDK, Maven, a C compiler)
	$(BIN)/python -m bench $(if $(ROWS),--groups $(ROWS)) $(ARGS)

# Atheris has no wheels for some platforms, so it is in no lock and in an environment of its own.
build/fuzz/venv/.installed: requirements.lock requirements-dev.lock
	$(PYTHON) -m venv build/fuzz/venv
	build/fuzz/venv/bin/pip install --quiet --require-hashes -r requirements.lock -r requirements-dev.lock
	build/fuzz/venv/bin/pip install --quiet --no-deps atheris==3.0.0
	@touch $@

FUZZ_SECONDS ?= 300

.PHONY: fuzz
fuzz: $(VENV)/.installed-dev build/fuzz/venv/.installed  ## decode ten million damaged frames, more of them with sanitizers, then let Atheris search
	$(BIN)/python -m tests.fuzz.mutations --frames 10000000 --seed $$(date +%s)
	$(BIN)/python -m tests.fuzz.sanitized --frames 300000 --seed $$(date +%s)
	$(BIN)/python -m tests.fuzz.sanitized_sending --seed $$(date +%s)
	build/fuzz/venv/bin/python -m tests.fuzz.coverage_guided wire -max_total_time=$(FUZZ_SECONDS)
	build/fuzz/venv/bin/python -m tests.fuzz.coverage_guided records -max_total_time=$(FUZZ_SECONDS)

CHAOS_SECONDS ?= 600
CHAOS_SEED ?= $$(date +%s)
CHAOS_CONSUMERS ?= 20
CHAOS_PAUSE_S ?= 60

.PHONY: chaos
chaos: $(VENV)/.installed-dev  ## 20 consumers join, leave, die and sleep for a minute while records flow, for as long as you like
	CHAOS_SECONDS=$(CHAOS_SECONDS) CHAOS_SEED=$(CHAOS_SEED) CHAOS_CONSUMERS=$(CHAOS_CONSUMERS) \
		CHAOS_PAUSE_S=$(CHAOS_PAUSE_S) $(BIN)/pytest -s tests/fault/test_group_chaos.py

CHAOS_MESSAGES ?= 100000
CHAOS_KILLS ?= 100

.PHONY: exactly-once
exactly-once: $(VENV)/.installed-dev  ## copy 100,000 messages in transactions through 100 kills (ARGS="-k librdkafka")
	CHAOS_MESSAGES=$(CHAOS_MESSAGES) CHAOS_KILLS=$(CHAOS_KILLS) CHAOS_SEED=$(CHAOS_SEED) \
		$(BIN)/pytest -s compat/exactly_once $(ARGS)

.PHONY: transactions-beside-kafka
transactions-beside-kafka: $(VENV)/.installed-dev  ## transactions where kpy and Apache Kafka coordinate for each other (needs a JDK)
	$(BIN)/pytest compat/replication/transactions_beside_kafka.py $(ARGS)

CHAOS_BROKERS ?= kpy

.PHONY: chaos-cluster
chaos-cluster: $(VENV)/.installed-dev  ## three brokers on ZooKeeper are killed, paused and cut off while clients write (needs root)
	$(BIN)/python -m tests.fault.cluster.run --brokers $(CHAOS_BROKERS) --seed $(CHAOS_SEED) --seconds $(CHAOS_SECONDS) $(ARGS)

.PHONY: lock
lock:  ## pin the newest versions of all dependencies, with hashes
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/pip install --quiet uv
	$(VENV)-lock/bin/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-emit-index-url --no-header \
		pyproject.toml requirements-build.in -o requirements.lock
	$(VENV)-lock/bin/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-emit-index-url --no-header \
		--group dev -c requirements.lock -o requirements-dev.lock
