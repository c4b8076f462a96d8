# sarusbox: an OCI container engine for HPC systems, in one static binary.

PREFIX  ?= /opt/sarus
DESTDIR ?=

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
TARGET  := $(or $(CARGO_TARGET_DIR),target)
BINARY  := $(TARGET)/sarusbox
SHARE    = $(dir $(BINARY))share
SOURCES := Cargo.toml Cargo.lock scripts/build-static.sh $(shell find src applets -type f)
PAGES   := scripts/pages.sh scripts/man.awk README.md CHANGELOG.md CONTRIBUTING.md LICENSE \
           SECURITY.md $(wildcard docs/*.md docs/man/*.md etc/completions/*)
# Directory for archives and packages.
DIST    ?= dist
# Timestamps in archives are those of the commit, so that the same commit gives the same bytes.
export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 0)
# Maximum size of the binary in bytes; docs/size.md has the size of each dependency.
BUDGET  := 3025000

CORES   := $(shell nproc)
# Tests spend more time waiting (registries, time limits, ends of processes) than working.
TEST_THREADS := $(shell echo $$((2 * $$(nproc))))
RUN_TESTS = SARUSBOX="$(abspath $(BINARY))" RUST_TEST_THREADS=$(TEST_THREADS) cargo test --locked

# OpenSSH for containers that run with --ssh; ENABLE_SSH=0 leaves it out.
ENABLE_SSH ?= 1
export OPENSSH := $(if $(filter 1 TRUE true yes,$(ENABLE_SSH)),$(abspath $(TARGET)/openssh))

.PHONY: all openssh install uninstall dist deb rpm test build-tests build-fuzzers test-vm fuzz demo bench lint size help

all: $(BINARY) $(SHARE) ## Build the static binary, documents and completions (the default)

# Rebuilds only after a change, so `make install` as root after `make` builds nothing.
$(BINARY): $(SOURCES)
	scripts/build-static.sh

$(SHARE): $(BINARY) $(PAGES)
	scripts/pages.sh "$(BINARY)" "$(SHARE)"

openssh: $(OPENSSH)/SOURCE ## Build the OpenSSH for containers, from Debian's source or OPENSSH_SOURCE

%/openssh/SOURCE: scripts/build-openssh.sh
	scripts/build-openssh.sh "$*/openssh"

install dist deb rpm: $(OPENSSH:%=%/SOURCE)

install: all ## Install below PREFIX (/opt/sarus), with DESTDIR in front while packaging
	scripts/install.sh "$(BINARY)" "$(DESTDIR)$(PREFIX)" "$(PREFIX)"

uninstall: ## Remove the installation below PREFIX; images and sarus.json stay
	scripts/uninstall.sh "$(DESTDIR)$(PREFIX)"

dist: all ## Pack an installation into dist/sarus-VERSION-ARCH.tar.gz
	scripts/dist.sh "$(BINARY)" "$(VERSION)" "$(DIST)"

deb: all ## Make a Debian package in dist/
	scripts/package-deb.sh "$(BINARY)" "$(VERSION)" "$(DIST)"

rpm: all ## Make an RPM package in dist/
	scripts/package-rpm.sh "$(BINARY)" "$(VERSION)" "$(DIST)"

# A hundred containers at once need the machine for themselves.
test: ## Run all tests, as root, against the real binary, OCI runtimes and mounts
	scripts/install-dependencies.sh test
	$(MAKE) --no-print-directory --jobs=$(CORES) lint all size openssh build-tests build-fuzzers
	$(RUN_TESTS) -- --skip run::scale
	$(RUN_TESTS) --test integration run::scale
	scripts/fuzz.sh 5

# After lint: both build in one directory, which cargo locks.
build-tests: lint
	cargo test --quiet --locked --no-run

build-fuzzers:
	scripts/fuzz.sh build

test-vm: all ## Test in a virtual machine whose kernel has cgroup v2 alone
	scripts/install-dependencies.sh vm
	tests/vm/run.sh "$(BINARY)"

fuzz: ## Fuzz each parser of outside data for a minute
	scripts/fuzz.sh 60

demo: ## Demonstrate: build, install privately, import an image, run it as a user
	scripts/demo.sh

bench: ## Measure import and start-up beside umoci, mksquashfs, podman, charliecloud
	scripts/bench.sh

lint: ## Check formatting, clippy, rustdoc and shellcheck
	cargo fmt --check
	cargo clippy --quiet --all-targets -- --deny warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --quiet --no-deps
	RUSTDOCFLAGS="-D warnings" cargo doc --quiet --no-deps --document-private-items
	shellcheck scripts/*.sh tests/vm/* .ci/run

size: $(BINARY) ## Fail if the binary is larger than its budget
	@size=$$(stat --format=%s "$(BINARY)"); echo "$$size bytes of $(BUDGET)"; [ "$$size" -le $(BUDGET) ]

help: ## Print this list
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' Makefile | while IFS='|' read -r name text; do \
	    printf '  make %-10s %s\n' "$$name" "$$text"; done
