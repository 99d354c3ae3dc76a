# Astrid's build. `make` alone says what there is.
#
# Two workspaces are built here. The host workspace makes the binary `astrid`; the guest workspace (capsules/) is compiled for
# WebAssembly and packed into bundles by that binary, which is then linked once more with the bundles inside. Cargo decides
# what has changed; this file only decides what has to be packed again.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules

CARGO ?= cargo
# Where `make install` puts things; DESTDIR is put in front, for packagers.
PREFIX ?= /usr/local
DESTDIR ?=
# Rounds of `make soak`.
ROUNDS ?= 200
# Seeds of `make sim`, and the first of them.
SEEDS ?= 5000
START ?= 1
# Seconds of each target of `make fuzz`.
SECONDS ?= 60

# The paths below are the ones that the build, the tests and the scripts agree on.
unexport CARGO_TARGET_DIR CARGO_BUILD_TARGET CARGO_BUILD_TARGET_DIR

ASTRID := target/release/astrid
CAPSULES := $(patsubst %/Capsule.toml,%,$(wildcard capsules/*/Capsule.toml))
EXAMPLES := $(patsubst %/Capsule.toml,%,$(wildcard examples/*/Capsule.toml tests/guests/*/Capsule.toml))

# What a bundle is made from. The packer is named by its sources and not as a file: it holds the bundles, so it is
# always newer than they are.
sources = $(shell find $(wildcard $(1)) -type f -not -path '*/target/*' 2>/dev/null)
PACKER_SOURCES := $(call sources,Cargo.toml Cargo.lock cli kernel/Cargo.toml kernel/src sdk/wire)
GUEST_SOURCES := $(call sources,capsules sdk wit) build/pack.sh target/guest-rustc
EXAMPLE_SOURCES := $(call sources,examples tests/guests)

.PHONY: help
help: ## Says what there is to make
	@echo 'usage: make TARGET'
	@echo
	@sed -nE 's/^([a-z]+):[^#]*## (.*)/  \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 12

.PHONY: run
run: build ## Builds Astrid and shows it at work, in a home of its own that is gone afterwards
	@build/demo.sh

.PHONY: build
build: target/pack/capsules.stamp ## Builds target/release/astrid with the built-in capsules inside
	$(CARGO) build --release --workspace

.PHONY: capsules
capsules: target/pack/capsules.stamp target/pack/examples.stamp ## Packs the built-in capsules and the examples (target/capsules, target/examples)

.PHONY: test
test: build capsules ## Runs all tests; the last line counts them
	@build/suites.sh

.PHONY: bench
bench: build capsules ## Measures Astrid, and in the same run the limits it is held against
	RUST_BACKTRACE=0 $(CARGO) bench --workspace --bench astrid

.PHONY: soak
soak: build capsules ## Kills everything at random, ROUNDS times (200): nothing may be left, run twice or be lost
	ASTRID_ROUNDS=$(ROUNDS) $(CARGO) test --release --workspace --test kills --test kills_durable -- --nocapture

.PHONY: sim
sim: capsules ## Simulates SEEDS worlds (5000) from START on (1), in which everything fails that can: nothing is lost or doubled
	ASTRID_SEEDS=$(SEEDS) ASTRID_START=$(START) $(CARGO) test --release --workspace --test sim -- --nocapture seeds

.PHONY: fuzz
fuzz: capsules ## Fuzzes what parses the outside, each target for SECONDS (60), guided by coverage where no engine is needed
	@build/fuzz.sh $(SECONDS)

.PHONY: peers
peers: build ## Measures Astrid beside supervisord and pm2, in turns, and writes docs/peers.md (minutes)
	@build/peers.sh

.PHONY: lint
lint: ## Checks format, lints, licences, scripts and the rules of the tree
	@build/lint.sh

.PHONY: install
install: build ## Installs below PREFIX (/usr/local)
	install -D -m 755 $(ASTRID) '$(DESTDIR)$(PREFIX)/bin/astrid'
	install -D -m 644 etc/astrid.toml '$(DESTDIR)$(PREFIX)/share/doc/astrid/astrid.toml'
	install -D -m 644 etc/processes.toml '$(DESTDIR)$(PREFIX)/share/doc/astrid/processes.toml'
	install -D -m 644 LICENSE '$(DESTDIR)$(PREFIX)/share/doc/astrid/LICENSE'
	install -d '$(DESTDIR)$(PREFIX)/lib/systemd/user'
	for unit in etc/systemd/*; do \
		sed 's:@PREFIX@:$(PREFIX):g' "$$unit" >'$(DESTDIR)$(PREFIX)/lib/systemd/user/'"$${unit##*/}"; \
		chmod 644 '$(DESTDIR)$(PREFIX)/lib/systemd/user/'"$${unit##*/}"; \
	done
	install -d '$(DESTDIR)$(PREFIX)/share/bash-completion/completions' '$(DESTDIR)$(PREFIX)/share/zsh/site-functions' \
		'$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d'
	$(ASTRID) completions bash >'$(DESTDIR)$(PREFIX)/share/bash-completion/completions/astrid'
	$(ASTRID) completions zsh >'$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_astrid'
	$(ASTRID) completions fish >'$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/astrid.fish'

.PHONY: clean
clean: ## Removes what was built here; the guest toolchain and the tools in the cache stay
	rm -rf target capsules/target

# ---- Steps ---------------------------------------------------------------------------------------

.PHONY: FORCE
FORCE:

# The path of the compiler for guests. Looked for each time, which is quick; the file changes only when the answer does,
# and then everything is packed again.
target/guest-rustc: FORCE
	@mkdir -p target
	@rustc=$$(build/guest-toolchain.sh); \
	if [ "$$rustc" != "$$(cat $@ 2>/dev/null || true)" ]; then printf '%s\n' "$$rustc" >$@; fi

.PHONY: packer
packer: target/guest-rustc
	$(CARGO) build --release --workspace

# A stamp has the time at which packing began: what was edited meanwhile is packed next time.
target/pack/capsules.stamp: $(GUEST_SOURCES) $(PACKER_SOURCES) $(if $(wildcard target/capsules/*.capsule),,FORCE) | packer
	@mkdir -p $(@D) && touch $@.new
	@build/pack.sh --precompile target/capsules $(CAPSULES)
	@mv $@.new $@

target/pack/examples.stamp: $(GUEST_SOURCES) $(EXAMPLE_SOURCES) $(PACKER_SOURCES) $(if $(wildcard target/examples/*.capsule),,FORCE) | packer
	@mkdir -p $(@D) && touch $@.new
	@build/pack.sh target/examples $(EXAMPLES)
	@mv $@.new $@
