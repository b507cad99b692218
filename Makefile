# godwit. `make help` lists the targets.
#
# Everything is built below $(BUILD); sources are found by wildcard, so a new file needs no line here.

BUILD ?= build
MAKEFLAGS += --no-builtin-rules
.SUFFIXES:
.DELETE_ON_ERROR:

# Targets that need no configuration come first; for all others configure runs by itself.
.PHONY: all
all: $(BUILD)/godwit

ifeq ($(filter clean help demo deps lint format test-tsan fuzz fuzz-smoke fuzz-afl,$(MAKECMDGOALS)),)
$(BUILD)/config.mk: configure VERSION
	@scripts/deps
	./configure --build=$(BUILD) $(or $(CONFIGURE_FLAGS),$(CONFIGURED_WITH))
include $(BUILD)/config.mk
endif

SRC  := $(sort $(shell find src -name '*.c'))
OBJ  := $(SRC:%.c=$(BUILD)/obj/%.o)
LIB  := $(BUILD)/libgodwit.a
CFLAGS_ALL = -std=gnu11 -D_GNU_SOURCE -Isrc -I$(BUILD) $(OPT) $(WARN) $(LIB_CFLAGS) -pthread

$(BUILD)/godwit: $(BUILD)/obj/src/main.o $(LIB)
	$(CC) $(OPT) $(LDFLAGS) -pthread -o $@ $^ $(LIBS)

# Whole again each time: an object whose source is gone must not stay inside.
$(LIB): $(filter-out %/src/main.o,$(OBJ))
	@rm -f $@
	ar rcs $@ $^

$(BUILD)/obj/%.o: %.c $(BUILD)/config.mk
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) -MMD -MP -c -o $@ $<

# The handlers of the execution engine are chained by tail calls (engine.h), at -O1 and -Og too.
$(BUILD)/obj/src/vcpu/%.o: CFLAGS_ALL += -foptimize-sibling-calls

# --- tests: one small program per file, run by tests/run ------------------------------------------------

UNIT     := $(patsubst %.c,$(BUILD)/%,$(sort $(shell find tests/unit -name 'test_*.c' 2>/dev/null)))
EXTRA_test_fpu_mpfr := -lmpfr -lgmp
EXTRA_fuzz_hmp = $(CMOCKA)
EXTRA_fuzz_qmp = $(CMOCKA)
FUZZ     := $(patsubst %.c,$(BUILD)/%,$(sort $(wildcard tests/fuzz/fuzz_*.c)))
BENCH    := $(patsubst %.c,$(BUILD)/%,$(sort $(wildcard bench/*.c)))

$(UNIT): $(BUILD)/%: $(BUILD)/obj/%.o $(LIB)
	@mkdir -p $(@D)
	$(CC) $(OPT) $(LDFLAGS) -pthread -o $@ $< $(LIB) $(LIBS) $(CMOCKA) $(EXTRA_$(@F))
$(BUILD)/obj/tests/%.o: CFLAGS_ALL += -I.

$(BENCH): $(BUILD)/%: $(BUILD)/obj/%.o $(LIB)
	@mkdir -p $(@D)
	$(CC) $(OPT) $(LDFLAGS) -pthread -o $@ $< $(LIB) $(LIBS)

# A fuzz target brings LLVMFuzzerTestOneInput(); main() comes from the sanitizer's library.
$(FUZZ): $(BUILD)/%: $(BUILD)/obj/%.o $(LIB)
	@mkdir -p $(@D)
	$(CC) $(OPT) -fsanitize=fuzzer $(LDFLAGS) -pthread -o $@ $< $(LIB) $(LIBS) $(EXTRA_$(@F))

-include tests/guest/guest.mk

.PHONY: unit bench-tools bench bench-full bench-convergence bench-cpu fuzzers guests test test-unit test-tsan reliability soak hops model fuzz fuzz-smoke fuzz-afl stress demo lint format deps install install-bench clean help
unit: $(UNIT)
bench-tools: $(BENCH)
fuzzers: $(FUZZ)
guests: $(GUESTS)

test: all unit guests $(BUILD)/bench/relay ## everything that takes up to 10 minutes
	tests/run --build $(BUILD)
test-unit: unit                          ## the unit tests alone
	tests/run --build $(BUILD) unit
test-tsan:                               ## all of it but the Linux boots, under ThreadSanitizer
	$(MAKE) BUILD=$(BUILD)-tsan CONFIGURE_FLAGS=--enable-sanitizer=thread all unit guests
	GODWIT_PATIENCE=$${GODWIT_PATIENCE:-300} tests/run --build $(BUILD)-tsan --no-linux --limit 1800
reliability: all guests                  ## cuts, kills, stops, errors and cancels of real processes, 20 minutes (GODWIT_SEED=)
	GODWIT_LONG=1 GODWIT_BUILD=$(abspath $(BUILD)) python3 tests/system/test_reliability.py
soak: all guests                         ## random migrations of random guests with random faults (HOURS=1 or MINUTES=, MIGRATIONS=, SEED=)
	GODWIT_BUILD=$(abspath $(BUILD)) HOURS=$(HOURS) MINUTES=$(MINUTES) MIGRATIONS=$(MIGRATIONS) SEED=$(SEED) python3 tests/soak/soak.py
hops: all guests                         ## one guest handed on so often, with everything in flight (HOPS=1000, DEBIAN=50, SEED=)
	GODWIT_BUILD=$(abspath $(BUILD)) HOPS=$(HOPS) DEBIAN=$(DEBIAN) SEED=$(SEED) python3 tests/soak/hops.py
model: $(BUILD)/tests/unit/migration/test_handover_model ## the hand-over's model, searched by SPIN (FAULTS=4)
	tests/model/check $(BUILD)
# MINUTES=: of wall-clock time, shared over all targets (tests/fuzz/run); TARGETS=NAME...: some of them
FUZZ_BUILD = $(MAKE) BUILD=$(BUILD)-fuzz CONFIGURE_FLAGS=--enable-sanitizer=fuzzer fuzzers
fuzz:                                    ## all fuzz targets, MINUTES=60 shared, with ASan and UBSan; goes on where it was
	+$(FUZZ_BUILD)
	tests/fuzz/run $(BUILD)-fuzz $$(($(or $(MINUTES),60) * 60)) $(TARGETS)
fuzz-smoke:                              ## the same for three minutes in all
	+$(FUZZ_BUILD)
	tests/fuzz/run $(BUILD)-fuzz $(or $(FUZZ_S),170) $(TARGETS)
fuzz-afl:                                ## the same targets under AFL++ (Debian package afl++), a few seconds each
	$(MAKE) BUILD=$(BUILD)-afl CONFIGURE_FLAGS=--enable-sanitizer=afl fuzzers
	tests/fuzz/afl $(BUILD)-afl $(or $(FUZZ_S),5)
stress: all unit guests $(BUILD)/bench/relay ## the long versions
	tests/run --build $(BUILD) --long
bench-cpu: all bench-tools               ## the engine beside QEMU: 10 to 15 minutes (BENCH_CPU=options of bench/cpu.py)
	bench/cpu.py $(BENCH_CPU)
bench: all bench-tools guests            ## migrations beside QEMU: four key cells in 10 minutes (BENCH_MIGRATE=options of bench/harness.py)
	bench/harness.py --minutes 10 $(BENCH_MIGRATE)
bench-full: all bench-tools guests       ## all cells, all of QEMU's configurations: hours, goes on where it was
	bench/harness.py --set full $(BENCH_MIGRATE)
# N=runs of each (30), MINUTES= or HOURS=, CELLS=NAME,..., LIMITS=MS,..., LEARN=1: QEMU's best configurations first
CONVERGENCE = $(if $(N),--runs $(N)) $(if $(MINUTES),--minutes $(MINUTES)) $(if $(HOURS),--hours $(HOURS)) $(if $(CELLS),--cells $(CELLS)) \
              $(if $(LIMITS),--limits $(LIMITS)) $(if $(LEARN),--learn) $(BENCH_CONVERGENCE)
bench-convergence: all bench-tools guests ## twelve cells by four limits beside QEMU's best; goes on where it was (N=, MINUTES=, CELLS=, LIMITS=)
	bench/convergence.py $(CONVERGENCE)

demo:                                    ## boot Debian's kernel, keep it writing memory, move it live
	scripts/demo
lint:                                    ## format, static analysis, layers
	tests/lint/lint
format:                                  ## clang-format over all sources
	clang-format -i $$(git ls-files '*.c' '*.h')
deps:                                    ## install what debian/control lists (root), or say how
	scripts/deps

install: all                             ## into $(DESTDIR)$(PREFIX)
	install -D -m 755 $(BUILD)/godwit $(DESTDIR)$(PREFIX)/bin/godwit
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/man/man1 $(filter-out docs/man/godwit-bench.1,$(wildcard docs/man/*.1))
SHARE = $(DESTDIR)$(PREFIX)/share/godwit
install-bench: install $(BUILD)/bench/relay $(BUILD)/guest/dirtier.elf ## and the migration harness, godwit-bench
	install -D -m 755 -t $(DESTDIR)$(PREFIX)/lib/godwit $(BUILD)/bench/relay $(BUILD)/guest/dirtier.elf
	install -D -m 644 -t $(SHARE)/bench bench/*.py bench/*.json
	install -D -m 755 -t $(SHARE)/bench bench/pack-guest bench/fetch-qemu bench/fetch-programs
	install -D -m 644 -t $(SHARE)/bench/guest bench/guest/*
	install -D -m 644 -t $(SHARE)/tests/lib tests/lib/vm.py
	install -D -m 755 -t $(SHARE)/scripts scripts/fetch-guest scripts/apt.sh
	sed 's|@PREFIX@|$(PREFIX)|g' bench/godwit-bench.in > $(BUILD)/godwit-bench
	install -D -m 755 $(BUILD)/godwit-bench $(DESTDIR)$(PREFIX)/bin/godwit-bench
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/man/man1 docs/man/godwit-bench.1
clean:                                   ## removes the build folders
	rm -rf $(BUILD) $(BUILD)-tsan $(BUILD)-asan $(BUILD)-ubsan $(BUILD)-fuzz $(BUILD)-afl $(BUILD)-lint
help:                                    ## this list
	@awk -F '##' '/^[a-z-]+:.*##/ { split($$1, t, ":"); printf "  make %-17s %s\n", t[1], $$2 }' Makefile

-include $(OBJ:.o=.d) $(patsubst $(BUILD)/%,$(BUILD)/obj/%.d,$(UNIT) $(FUZZ) $(BENCH))
