# `make help` says what there is. Every recipe is plain commands that can be typed by hand.

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup demo demo-etcd demo-ha wheel test setup-test fmt-check clippy doc test-rust test-python test-e2e test-e2e-slow test-dataplane test-dataplane-slow test-hub test-hub-proxy image test-containers test-played test-kind kill-loop chaos test-chaos lint deny fmt bench bench-start clean test-chart test-z2jh chart-accept

PYTHON ?= python3
PORT ?= 8000
CARGO := scripts/cargo
ROUNDS ?= 200
RUNS ?= 20
HUB6_PYTHON := .pointsman/hub6/bin/python
DEBUG_BINARY = $(abspath $(or $(CARGO_TARGET_DIR),target)/debug/pointsman)
RELEASE_BINARY = $(abspath $(or $(CARGO_TARGET_DIR),target)/release/pointsman)
heading = @printf '\n=== %s\n' '$(1)'

help: ## say what there is
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-19s %s\n", $$1, $$2 }' Makefile

setup: ## get everything that the demo, the tests and the benchmark need into .pointsman/
	@$(PYTHON) scripts/dev-env

demo: ## run JupyterHub on Pointsman on this machine, until Ctrl-C (PORT=8000)
	@$(PYTHON) scripts/demo --port $(PORT)

demo-etcd: ## the same with the routes in etcd, and each part started for itself (PORT=8000)
	@$(PYTHON) scripts/demo --etcd --port $(PORT)

demo-ha: ## 3 etcd, 2 Pointsmen, 2 Traefiks and a hub, with commands to kill and revive each (PORT=8000 ARGS="--do ...")
	@$(PYTHON) scripts/demo-ha --port $(PORT) $(ARGS)

wheel: ## build the Python package for this machine into target/wheels/
	@$(PYTHON) scripts/dev-env build wheel
	CARGO=$(abspath $(CARGO)) .pointsman/wheel/bin/maturin build --release --locked --out target/wheels

test: setup-test fmt-check clippy doc deny test-rust test-python test-chart test-e2e test-dataplane test-hub-proxy test-chaos test-containers ## run all checks and tests
	$(call heading,All checks and tests passed)

setup-test:
	$(call heading,What the tests need)
	@$(PYTHON) scripts/dev-env test

fmt-check:
	$(call heading,Formatting)
	$(CARGO) fmt --check
	$(CARGO) fmt --check --manifest-path tests/containers/Cargo.toml

clippy:
	$(call heading,Lints)
	$(CARGO) clippy --locked --all-targets -- -D warnings

doc:
	$(call heading,Documentation)
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --no-deps

test-rust: ## run the Rust tests: unit, property, API, real etcd and real Traefik
	$(call heading,Rust tests)
	$(CARGO) nextest run --locked

test-python: ## run the tests of the Python package: the class for the hub, the wheel (ARGS="-k names")
	$(call heading,Python package)
	.pointsman/hub6/bin/python -m pytest tests/python $(ARGS)

test-chart: ## run the tests of the Helm chart, without a cluster (ARGS="-k names")
	$(call heading,Helm chart)
	.pointsman/chart/bin/python -m pytest tests/chart $(ARGS)

test-z2jh: ## render Zero to JupyterHub's chart with ours and run its hub's configuration (Z2JH_CHART=FOLDER, else it is downloaded)
	$(call heading,Beside the chart of Zero to JupyterHub)
	@$(PYTHON) scripts/dev-env traefik hub6 hub5 chart $(if $(Z2JH_CHART),,z2jh)
	$(CARGO) test --locked --no-run --quiet # the program as the Rust tests have it
	Z2JH_CHART=$(abspath $(Z2JH_CHART)) POINTSMAN_TEST_BINARY=$(DEBUG_BINARY) .pointsman/chart/bin/python -m pytest tests/chart -m z2jh $(ARGS)

chart-accept: ## write what the chart's tests compare with: rendered objects, immutable fields, the chart's README
	.pointsman/chart/bin/python scripts/chart-docs
	POINTSMAN_TEST_WRITE_CHART=1 .pointsman/chart/bin/python -m pytest -q tests/chart -m written

test-e2e: ## run the end-to-end tests with real JupyterHubs and a browser (ARGS="-k names")
	$(call heading,End-to-end tests)
	$(CARGO) test --locked --no-run --quiet # the program as the Rust tests have it: a plain build would compile all again
	@export POINTSMAN_TEST_BINARY=$(DEBUG_BINARY); set -x; \
	if [ -n "$(ARGS)" ]; then \
		$(HUB6_PYTHON) -m pytest tests/e2e $(ARGS); \
	else \
		scripts/side-by-side \
			'hub5=POINTSMAN_E2E_FOLDER=e2e-hub5 $(HUB6_PYTHON) -m pytest tests/e2e -k hub5' \
			'demos=POINTSMAN_E2E_FOLDER=e2e-demos $(HUB6_PYTHON) -m pytest tests/e2e -k "culling or demo"' \
			'single=POINTSMAN_E2E_FOLDER=e2e-single $(HUB6_PYTHON) -m pytest tests/e2e -k nothing_single' \
			'others=$(HUB6_PYTHON) -m pytest tests/e2e -k "not hub5 and not culling and not demo and not nothing_single"'; \
	fi

test-e2e-slow: ## run those that take two minutes more: the idle culler with etcd
	$(CARGO) test --locked --no-run --quiet
	POINTSMAN_TEST_BINARY=$(DEBUG_BINARY) $(HUB6_PYTHON) -m pytest tests/e2e -m slow $(ARGS)

test-dataplane: ## send the same requests to configurable-http-proxy and to Pointsman (ARGS="-k names")
	$(call heading,The data plane beside configurable-http-proxy)
	$(CARGO) test --locked --no-run --quiet # the program as the Rust tests have it
	POINTSMAN_TEST_BINARY=$(DEBUG_BINARY) $(HUB6_PYTHON) -m pytest tests/dataplane $(ARGS)

test-dataplane-slow: ## the same with what takes long: ten idle minutes, 1 GB (about 30 minutes)
	$(CARGO) test --locked --no-run --quiet
	POINTSMAN_TEST_BINARY=$(DEBUG_BINARY) $(HUB6_PYTHON) -m pytest tests/dataplane -m slow $(ARGS)

test-hub-proxy:
	$(call heading,The proxy tests of JupyterHub itself)
	$(CARGO) test --locked --no-run --quiet
	POINTSMAN_TEST_BINARY=$(DEBUG_BINARY) $(PYTHON) tests/hub_suite/run --variant plain test_proxy.py test_unix_socket.py

test-hub: ## run JupyterHub's own tests with Pointsman as its proxy: plain, subdomains, internal_ssl (half an hour)
	@$(PYTHON) scripts/dev-env traefik hub6 hub-suite
	$(CARGO) test --locked --no-run --quiet
	POINTSMAN_TEST_BINARY=$(DEBUG_BINARY) $(PYTHON) tests/hub_suite/run $(ARGS)

image: ## build Pointsman's image as it is released (ARGS="--quick" for tests, "--in-docker" without Rust here)
	@$(PYTHON) scripts/dev-env build $(if $(ARGS),,sbom)
	@$(PYTHON) scripts/image $(ARGS)

test-containers: ## run our image in containers with several etcd and Traefik: killed, hung, cut off (ARGS="--release", "-- NAMES")
	$(call heading,Containers)
	@$(PYTHON) scripts/dev-env containers
	$(CARGO) clippy --locked --tests --manifest-path tests/containers/Cargo.toml --target-dir $(or $(CARGO_TARGET_DIR),target) -- -D warnings
	$(PYTHON) scripts/test-containers $(ARGS)

test-played: ## play the chart as containers with a real hub, under load (PLAYER='program that plays manifests')
	@$(PYTHON) scripts/dev-env chart hub6
	@test -n "$(PLAYER)" || { echo "error: PLAYER names no program that plays manifests; tests/played/clusters.py says what it must do"; exit 1; }
	.pointsman/chart/bin/python tests/played/run --player '$(PLAYER)' $(ARGS)

test-kind: ## play the chart on a Kubernetes that kind makes: needs Docker, kind, kubectl and helm
	@$(PYTHON) scripts/test-kind $(ARGS)

kill-loop: ## kill Pointsman and Traefik in a loop under load, and look for losses (ROUNDS=200 SEED=1)
	@$(PYTHON) scripts/dev-env build traefik
	$(CARGO) build --locked --release
	$(PYTHON) tests/e2e/kill_loop.py --binary $(RELEASE_BINARY) --rounds $(ROUNDS) $(if $(SEED),--seed $(SEED))

chaos: ## inject faults into three etcd, three Traefiks, three Pointsmen under load, and judge (RUNS=20 SEED=1 FAULTS=a,b LEDGER=file)
	@$(PYTHON) scripts/dev-env build etcd traefik
	$(CARGO) build --locked --release
	$(PYTHON) tests/chaos/run --binary $(RELEASE_BINARY) --runs $(RUNS) $(if $(SEED),--seed $(SEED)) $(if $(FAULTS),--faults $(FAULTS)) $(if $(LEDGER),--ledger $(LEDGER)) $(ARGS)

test-chaos: ## try the judge of the chaos runs on wrong histories, then a few runs (a minute and a half)
	$(call heading,Faults under load)
	$(CARGO) test --locked --no-run --quiet # the program as the Rust tests have it
	$(HUB6_PYTHON) -m pytest -q tests/chaos
	$(PYTHON) tests/chaos/run --binary $(DEBUG_BINARY) --seed 1 --runs 10 --seconds 60 --short

lint: fmt-check clippy doc ## check formatting, lints and documentation

deny: ## check licences, duplicates, sources and known vulnerabilities of all dependencies
	$(call heading,Dependencies)
	@$(PYTHON) scripts/dev-env cargo-tools
	$(CARGO) deny --locked check bans licenses sources
	@if timeout 120 $(CARGO) deny --locked fetch db; then \
		set -x; $(CARGO) deny --locked check --disable-fetch advisories; \
	else \
		printf '\n%s\n%s\n\n' '!!! NOT CHECKED: the database of known vulnerabilities could not be fetched (the reason is above).' \
			'!!! Run `make deny` where it can be, before a release.'; \
	fi

fmt: ## format the Rust code
	$(CARGO) fmt

bench: ## measure how long a route takes, beside CHP and beside jupyterhub-traefik-proxy's keys
	@$(PYTHON) scripts/dev-env bench
	$(CARGO) build --locked --release
	$(PYTHON) benches/routed.py $(ARGS)

bench-start: ## measure how long a start takes, on an empty folder and with 10,000 routes
	@$(PYTHON) scripts/dev-env build traefik
	$(CARGO) build --locked --release
	$(PYTHON) benches/start.py --binary $(RELEASE_BINARY) $(ARGS)

clean: ## remove what was built and what was downloaded
	$(CARGO) clean
	rm -rf .pointsman
