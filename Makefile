# make demo    two whole nodes, every fault, a table (about 10 minutes, as root)
# make check   every test (about 25 minutes, as root): lint and test
# make check-drbd  the real nodes, with DRBD itself: their tour and the demo on them (as root)
# make lint    linters, types, spelling (a minute)
# make test    the tests alone; PYTEST_OPTIONS="-k relay" for some of them
# make bench   the stack of 2014 and this one in turns (about 75 minutes, as root)
# make soak    300 calls, reloads, debuggers, load: nothing may fail (13 minutes, as root)
# make fuzz    bad input for every parser and protocol (10 minutes)
# make package the Debian package, beside this directory
# make man     the manual's pages in build/man, from docs/man
# make install the same files without a package, DESTDIR respected
# make clean   removes what these made in this directory, but not build

PYTHON := /usr/bin/python3
VENV := .venv
# What the lab and the tests run with; installed only where missing.
HOST_PACKAGES := systemd-container mmdebstrap iproute2 util-linux e2fsprogs python3-venv man-db \
	go-md2man ethtool

AGENTS := sark-data lan-source asterisk-health rhino-relay
OCF_DIR := $(DESTDIR)/usr/lib/ocf/resource.d/asha
LIB_DIR := $(DESTDIR)/usr/lib/python3/dist-packages
UNIT_DIR := $(DESTDIR)/usr/lib/systemd/system
SHARE_DIR := $(DESTDIR)/usr/share/asha
MAN_DIR := $(DESTDIR)/usr/share/man
# The manual is written in Markdown; troff is made from it, with no word broken at a line's end.
MANUAL := asha.8 asha.conf.5
MAN_PAGES := build/man
COMPLETION_DIR := $(DESTDIR)/usr/share/bash-completion/completions

# Tests that share no node run side by side; a third worker uses what two leave idle of
# two cores, since a cluster is waited for most of the time. In the order of the folders:
# those with nodes, which take longest, come first.
WORKERS ?= 3
PYTEST_OPTIONS ?=

.PHONY: help demo check check-drbd lint test bench soak fuzz package man install host-packages clean

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

demo: host-packages
	$(PYTHON) -m tests.demo $(DEMO)

check: host-packages lint test

check-drbd: host-packages $(VENV)/ready
	$(VENV)/bin/python -m pytest --capture=no tests/cluster/test_real.py $(PYTEST_OPTIONS)
	$(PYTHON) -m tests.demo --nodes real

lint: $(VENV)/ready
	$(VENV)/bin/ruff check --config tests/ruff.toml . sbin/asha $(addprefix agents/,$(AGENTS))
	$(VENV)/bin/mypy
	$(VENV)/bin/codespell

test: $(VENV)/ready
	$(VENV)/bin/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_OPTIONS)

bench: host-packages
	$(PYTHON) -m tests.bench $(BENCH)

soak: host-packages
	$(PYTHON) -m tests.soak $(SOAK)

fuzz: $(VENV)/ready
	$(VENV)/bin/python -m tests.fuzz $(FUZZ)

$(VENV)/ready: tests/requirements.txt
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip --quiet install --requirement tests/requirements.txt
	touch $@

# Only root can install packages; without it the tests say what they lack.
host-packages:
	@missing=$$(for p in $(HOST_PACKAGES); do dpkg-query -W -f '$${db:Status-Status}' $$p 2>/dev/null | grep -qx installed || echo $$p; done); \
	if [ -n "$$missing" ] && [ "$$(id -u)" = 0 ]; then \
		echo "installing" $$missing; \
		apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends $$missing; \
	fi

package:
	@dpkg-checkbuilddeps || [ "$$(id -u)" != 0 ] || { apt-get -qq update && \
		DEBIAN_FRONTEND=noninteractive apt-get -qq -y build-dep ./; }
	dpkg-buildpackage -us -uc -b

man:
	mkdir -p $(MAN_PAGES)
	for page in $(MANUAL); do \
		go-md2man -in docs/man/$$page.md -out $(MAN_PAGES)/$$page && \
		sed -i '/^\.TH/a .nh\n.ad l' $(MAN_PAGES)/$$page || exit; \
	done

install: man
	install -d $(OCF_DIR) $(LIB_DIR) $(UNIT_DIR) $(SHARE_DIR) $(DESTDIR)/etc/asha
	install -m 755 $(addprefix agents/,$(AGENTS)) $(OCF_DIR)
	install -D -m 755 sbin/asha $(DESTDIR)/usr/sbin/asha
	find asha \( -name '*.py' -o -name '*.in' \) -exec install -D -m 644 {} $(LIB_DIR)/{} \;
	install -m 644 asha/*/asha-*.service $(UNIT_DIR)
	install -m 644 cib/asha.crm $(SHARE_DIR)
	install -D -m 644 -t $(MAN_DIR)/man8 $(MAN_PAGES)/asha.8
	install -D -m 644 -t $(MAN_DIR)/man5 $(MAN_PAGES)/asha.conf.5
	install -D -m 644 debian/asha.bash-completion $(COMPLETION_DIR)/asha

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
