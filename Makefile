# sarusbox: an OCI container engine for HPC systems, in one static binary.

PREFIX  ?= /opt/sarus
DESTDIR ?=

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
TARGET  := $(or $(CARGO_TARGET_DIR),target)
BINARY  := $(TARGET)/sarusbox
SOURCES := Cargo.toml Cargo.lock scripts/build-static.sh $(shell find src applets -type f)
DIST     = dist/sarus-$(VERSION)-$(shell uname -m)
# Above this the build fails: what a dependency costs stands in docs/size.md.
BUDGET  := 2800000

.PHONY: all install dist test demo bench lint size help

all: $(BINARY) ## Build the static binary (the default)

# Only what changed is built, and nothing when `make install` runs as root after `make`.
$(BINARY): $(SOURCES)
	scripts/build-static.sh

install: $(BINARY) ## Install below PREFIX (/opt/sarus), with DESTDIR in front while packaging
	scripts/install.sh "$(BINARY)" "$(DESTDIR)$(PREFIX)" "$(PREFIX)"

dist: $(BINARY) ## Pack what is installed into dist/sarus-VERSION-ARCH.tar.gz
	rm -rf "$(DIST)"
	scripts/install.sh "$(BINARY)" "$(DIST)"
	tar --create --gzip --sort=name --owner=0 --group=0 --numeric-owner --mode=u-s,go-w \
	    --file "$(DIST).tar.gz" --directory "$(dir $(DIST))" "$(notdir $(DIST))"
	rm -rf "$(DIST)"
	@echo "$(DIST).tar.gz"

test: ## Run all tests, as root, against the real binary, OCI runtimes and mounts
	scripts/install-dependencies.sh test
	$(MAKE) --no-print-directory lint all size
	SARUSBOX="$(abspath $(BINARY))" cargo test --locked

demo: ## Show it at work: build, install privately, import an image, run it as a user
	scripts/demo.sh

bench: ## Measure import and start-up beside umoci, mksquashfs, podman, charliecloud
	scripts/bench.sh

lint: ## Check format, clippy without warnings, and the scripts
	cargo fmt --check
	cargo clippy --quiet --all-targets -- --deny warnings
	shellcheck scripts/*.sh .ci/run

size: $(BINARY) ## Fail if the binary outgrew its budget
	@size=$$(stat --format=%s "$(BINARY)"); echo "$$size bytes of $(BUDGET)"; [ "$$size" -le $(BUDGET) ]

help: ## Print this
	@sed -n 's/^\([a-z]*\):.*## /\1|/p' Makefile | while IFS='|' read -r name text; do \
	    printf '  make %-10s %s\n' "$$name" "$$text"; done
