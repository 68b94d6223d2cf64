# Build, test, install. `make` alone says what there is.

PREFIX ?= /usr/local
DESTDIR ?=
CARGO ?= cargo
need := tools/scripts/need.sh
release := target/release

.DEFAULT_GOAL := help
.PHONY: help build demo test unit e2e vm-test vm-bench bench sim sim-mutants model campaign campaign-kills hostile fuzz deb fmt lint man reference install uninstall clean

help: ## say what there is
	@echo "make TARGET:"
	@sed -nE 's/^([a-z0-9-]+):.*## (.*)/  \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 14 | \
	    if [ -e tests/tests/sim.rs ]; then cat; else sed '/^  sim/d'; fi

build: ## build volmgr and volmgrd into target/release
	@$(need) build
	$(CARGO) build --release --locked -p tools

demo: build ## backup and restore of a real filesystem between two nodes on this machine
	@$(need) demo
	tests/demo/demo.sh

test: ## everything that runs without a virtual machine: fmt, lint, unit, e2e
	@$(need) build test
	$(MAKE) --no-print-directory lint
	$(MAKE) --no-print-directory unit
	$(MAKE) --no-print-directory e2e

unit: ## the tests of the crates
	$(CARGO) test --workspace --locked

e2e: build ## real programs on this machine (tests/e2e)
	@$(need) test
	$(CARGO) build --release --locked -p nbd-export --example checked-load -p feedplex --example hostile-peer
	tests/e2e/run

vm-test: build ## real kernels in QEMU (tests/vm)
	@$(need) vm
	$(CARGO) test --locked --no-run -p feedplex --test kernel_tls
	tests/vm/run

vm-bench: build ## block devices and feeds beside rublk, md, DRBD, in a real kernel (tests/vm/bench)
	@$(need) vm vmbench
	tests/vm/bench/run --suite trixie-backports

bench: build ## figures beside those of others (tests/bench)
	@$(need) bench
	tests/bench/run
	tests/bench/live
	tests/bench/resync
	tests/bench/where
	tests/bench/control

sim: ## whole nodes over simulated disks and networks; SEED=… replays one
	$(CARGO) test --locked --release -p volmgr-tests --test sim -- --nocapture

sim-mutants: ## deliberate bugs that the simulator must catch; MUTANT=… tries one
	$(CARGO) test --locked --release -p volmgr-tests --features mutants --test mutants -- --nocapture

model: ## every order of steps of a feed between two nodes, more of it than `make unit` looks at
	$(CARGO) test --locked --release -p volmgr-tests --test model -- --ignored --nocapture

campaign: build ## kill -9 of either daemon for SECONDS=600, under load; SEED=1
	@$(need) test
	$(CARGO) build --release --locked -p nbd-export --example checked-load
	tests/campaign/run $(or $(SECONDS),600) $(or $(SEED),1)

campaign-kills: build ## the same until KILLS=300 daemons have been killed; SEED=1
	@$(need) test
	$(CARGO) build --release --locked -p nbd-export --example checked-load
	tests/campaign/kills $(or $(KILLS),300) $(or $(SEED),1)

hostile: build ## peers that mean harm, for six minutes
	@$(need) test
	$(CARGO) build --release --locked -p nbd-export --example checked-load -p feedplex --example hostile-peer
	tests/e2e/run hostile-peers

fuzz: ## the decoders, each for TIME=60 seconds, or RUNS=n executions (needs rustup's nightly)
	fuzz/run $(TARGETS)

deb: build ## a Debian package in target/deb
	@$(need) deb
	dist/deb/build

fmt: ## format the sources
	$(CARGO) fmt --all

lint: ## check format and clippy's opinion
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

man: build ## write the man pages to target/man
	rm -rf target/man
	$(release)/volmgr man --dir target/man

reference: build ## write docs/reference.md anew, from the definitions in the code
	$(release)/volmgr man --reference docs/reference.md

install: man ## install under PREFIX=/usr/local (DESTDIR is honoured)
	install -D -m 755 $(release)/volmgr $(DESTDIR)$(PREFIX)/bin/volmgr
	install -D -m 755 $(release)/volmgrd $(DESTDIR)$(PREFIX)/sbin/volmgrd
	install -D -m 644 tools/udev/61-volmgr.rules $(DESTDIR)$(PREFIX)/lib/udev/rules.d/61-volmgr.rules
	install -D -m 644 dist/udev/optional/62-volmgr-user.rules $(DESTDIR)$(PREFIX)/share/volmgr/udev/62-volmgr-user.rules
	install -d $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(PREFIX)/share/man/man7 $(DESTDIR)$(PREFIX)/share/man/man8
	install -m 644 target/man/*.1 $(DESTDIR)$(PREFIX)/share/man/man1/
	install -m 644 target/man/*.7 $(DESTDIR)$(PREFIX)/share/man/man7/
	install -m 644 target/man/*.8 $(DESTDIR)$(PREFIX)/share/man/man8/
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions $(DESTDIR)$(PREFIX)/share/zsh/site-functions \
	    $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	$(release)/volmgr completions bash >$(DESTDIR)$(PREFIX)/share/bash-completion/completions/volmgr
	$(release)/volmgr completions zsh >$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_volmgr
	$(release)/volmgr completions fish >$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/volmgr.fish

uninstall: ## remove what install has put there
	rm -f $(DESTDIR)$(PREFIX)/bin/volmgr $(DESTDIR)$(PREFIX)/sbin/volmgrd $(DESTDIR)$(PREFIX)/lib/udev/rules.d/61-volmgr.rules \
	    $(DESTDIR)$(PREFIX)/share/volmgr/udev/62-volmgr-user.rules \
	    $(DESTDIR)$(PREFIX)/share/man/man1/volmgr.1 \
	    $(DESTDIR)$(PREFIX)/share/man/man1/volmgr-*.1 $(DESTDIR)$(PREFIX)/share/man/man8/volmgrd.8 \
	    $(DESTDIR)$(PREFIX)/share/man/man8/volmgr.8 $(DESTDIR)$(PREFIX)/share/man/man7/feedplex.7 \
	    $(DESTDIR)$(PREFIX)/share/bash-completion/completions/volmgr \
	    $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_volmgr $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/volmgr.fish

clean: ## remove what was built
	$(CARGO) clean
