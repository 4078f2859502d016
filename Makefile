# Everything here works in a fresh clone on Debian 12 or later, as root for what needs a real Postfix.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What the lab and the tests start for real; installed by name when it is missing and we are root.
PACKAGES := postfix postfix-lmdb iproute2 python3-venv procps rbldnsd zstd util-linux systemd dovecot-imapd openssl pflogsumm redis-server chromium fonts-liberation gcc libc6-dev python3-dev clickhouse-server openssh-client openssh-server rsyslog
BENCH_PACKAGES := postfwd

.PHONY: venv run test lint bench screenshots soak system clean

$(VENV)/installed: pyproject.toml
	$(MAKE) system
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	touch $@

# What hatch_build.py compiles, and what is compiled into it from beside it.
COMPILED_FROM := pyproject.toml hatch_build.py $(wildcard parsers/*.py parsers/postfix/*.py policies/*.py) \
  $(shell sed -n '/^modules = \[/,/^\]/s/^ *"\(sidecar.*\)",/\1/p' pyproject.toml)
$(VENV)/compiled: $(VENV)/installed $(COMPILED_FROM)
	$(BIN)/python hatch_build.py
	touch $@

venv: $(VENV)/compiled $(BIN)/promtool ## the package and its test extra, in .venv; its hot modules compiled

# Prometheus's own check of metrics and rules, taken out of Debian's package: to install that would start a server.
$(BIN)/promtool: | $(VENV)/installed
	@directory=$$(mktemp -d) && trap 'rm -rf "$$directory"' EXIT && cd "$$directory" && \
	{ apt-get download -qq prometheus || { apt-get update -qq && apt-get download -qq prometheus; }; } && \
	dpkg-deb --fsys-tarfile prometheus_*.deb | tar -xf - ./usr/bin/promtool && \
	install -m 755 usr/bin/promtool $(CURDIR)/$@

system:
	@missing=$$(for p in $(PACKAGES); do dpkg -s $$p >/dev/null 2>&1 || printf '%s ' $$p; done); \
	if [ -n "$$missing" ]; then \
	  if [ "$$(id -u)" != 0 ]; then echo "missing: $$missing(install as root: apt-get install $$missing)" >&2; exit 1; fi; \
	  echo 'postfix postfix/main_mailer_type select No configuration' | debconf-set-selections; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; \
	fi

run: venv ## a private Postfix, simulated providers, a sending fleet, the sidecar: Ctrl-C ends it all
	$(BIN)/sidecar lab

test: venv lint ## all checks
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

lint: venv
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: venv ## the figures of benchmarks/README.md
	$(MAKE) system PACKAGES="$(BENCH_PACKAGES)"
	$(BIN)/python benchmarks/ramp.py
	$(BIN)/python benchmarks/ramp_lab.py
	$(BIN)/python benchmarks/replies.py
	$(BIN)/python benchmarks/expression.py
	$(BIN)/python benchmarks/policyd.py
	$(BIN)/python benchmarks/suppression.py
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/logs.py
	$(BIN)/python benchmarks/history.py
	$(BIN)/python benchmarks/clickhouse.py
	$(BIN)/python benchmarks/page.py
	$(BIN)/python benchmarks/fleet.py
	$(BIN)/python benchmarks/fleet_limit.py

screenshots: venv ## the pictures of docs/page.md, made by the tests of the status page in a browser
	$(MAKE) system PACKAGES=pngquant
	SCREENSHOTS=docs/screenshots $(BIN)/python -m pytest tests/test_page_browser.py -p no:randomly
	pngquant --force --ext .png --skip-if-larger --strip 128 docs/screenshots/*.png

soak: venv ## long: mutated log lines, the fuzzer, a year of polls, a log of 10 GB, properties a hundred times over, then every drill on a real Postfix
	$(BIN)/python benchmarks/soak_lines.py 10000000
	$(BIN)/python benchmarks/fuzz.py all 600
	$(BIN)/python benchmarks/polls.py
	$(BIN)/python benchmarks/long_log.py
	SOAK=100 $(BIN)/python -m pytest tests/test_engine_properties.py tests/test_replies_heard.py tests/test_replies_reworded.py tests/test_feed_faults.py --timeout 14400
	for drill in $$($(BIN)/python -c 'from sidecar.lab.drills import DRILLS; print(*DRILLS)'); do \
	  $(BIN)/sidecar lab --drill $$drill || exit 1; done
	$(BIN)/sidecar lab --scenario fleet
	for drill in $$($(BIN)/python -c 'from sidecar.lab.hosts.drills import FLEET_DRILLS; print(*FLEET_DRILLS)'); do \
	  $(BIN)/sidecar lab --drill $$drill || exit 1; done

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
