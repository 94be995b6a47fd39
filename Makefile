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
else
OPT := -O2
endif

SERVICES := edge token policy config metrics mockllm
VERSION  := $(shell cat proto/VERSION)

WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wcast-qual -Wwrite-strings \
        -Wformat=2 -Wundef -fno-common -Werror
PKGS := libmicrohttpd libcurl openssl sqlite3 libcjson libmariadb hiredis yaml-0.1
PKG_CFLAGS = $(shell pkg-config --cflags $(PKGS))
LIBS       = $(shell pkg-config --libs $(PKGS)) -lnats -lpthread -lm
CPPFLAGS += -D_GNU_SOURCE -DAIGW_VERSION='"$(VERSION)"' -Icommon -I. $(PKG_CFLAGS)
CFLAGS   ?= $(OPT) -g
CFLAGS   += -std=gnu11 $(WARN) $(SANFLAGS) -fstack-protector-strong
LDFLAGS  += $(SANFLAGS)

COMMON_SRC := $(wildcard common/*/*.c) $(wildcard proto/*.c)
COMMON_OBJ := $(COMMON_SRC:%.c=$(BUILD)/%.o)
COMMON_LIB := $(BUILD)/libaigw.a

BINS := $(SERVICES:%=$(BUILD)/bin/aigw-%) $(BUILD)/bin/aigw-vocab $(BUILD)/bin/aigw-count $(BUILD)/bin/aigw-run

all: $(BINS) ## Build every program into build/release/bin

# A daemon is every .c of its folder; a file named tool_*.c is a program of its own.
service_src = $(filter-out services/$(1)/tool_%.c,$(wildcard services/$(1)/*.c))
define SERVICE_RULE
$(BUILD)/bin/aigw-$(1): $(patsubst %.c,$(BUILD)/%.o,$(call service_src,$(1))) $(COMMON_LIB)
	@mkdir -p $$(@D)
	$$(CC) $$(LDFLAGS) -o $$@ $$^ $$(LIBS)
endef
$(foreach s,$(SERVICES) run,$(eval $(call SERVICE_RULE,$(s))))

$(BUILD)/bin/aigw-vocab: $(BUILD)/services/token/tool_vocab.o $(COMMON_LIB)
$(BUILD)/bin/aigw-count: $(BUILD)/services/token/tool_count.o $(COMMON_LIB)
$(BUILD)/bin/aigw-vocab $(BUILD)/bin/aigw-count:
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ $(LIBS)

$(COMMON_LIB): $(COMMON_OBJ)
	@rm -f $@
	$(AR) rcs $@ $^

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)

# Unit tests: tests/unit/test_x.c links common/ and proto/; tests/unit/SERVICE/test_x.c that service's files too, but main.
UNIT_SRC := $(wildcard tests/unit/test_*.c) $(wildcard tests/unit/*/test_*.c)
UNIT_BIN := $(UNIT_SRC:tests/unit/%.c=$(BUILD)/unit/%)
$(BUILD)/unit/test_%: $(BUILD)/tests/unit/test_%.o $(COMMON_LIB)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ $(LIBS) -lcmocka
define UNIT_RULE
$(BUILD)/unit/$(1)/test_%: $(BUILD)/tests/unit/$(1)/test_%.o \
		$(patsubst %.c,$(BUILD)/%.o,$(filter-out services/$(1)/main.c,$(call service_src,$(1)))) $(COMMON_LIB)
	@mkdir -p $$(@D)
	$$(CC) $$(LDFLAGS) -o $$@ $$^ $$(LIBS) -lcmocka
endef
$(foreach s,$(SERVICES) run,$(eval $(call UNIT_RULE,$(s))))

check: $(UNIT_BIN) ## Unit tests, in seconds (SAN=asan or tsan for a sanitizer build)
	@fail=0; for t in $(UNIT_BIN); do ./$$t >$$t.log 2>&1 || { fail=1; echo "FAILED $$t"; tail -40 $$t.log; }; done; exit $$fail

clean: ## Remove everything that was built
	rm -rf build

.PHONY: all check clean
.DEFAULT_GOAL := all
.SECONDARY:
