# inferd - one Makefile for everything. Two targets matter to a user:
#   make serve   install what is missing, build, start the daemon (MODEL=..., ARGS=...)
#   make test    the same set-up, then every test
# Sources are found by wildcard; output goes to $(BUILD), never beside the sources.

BUILD   ?= build
VERSION := 0.1.0
SAN     ?=

CC  ?= gcc
CXX ?= g++
ifeq ($(origin CC),default)
CC  := gcc
endif
ifeq ($(origin CXX),default)
CXX := g++
endif
OPT ?= -O2

WARN     := -Wall -Wextra -Werror -Wshadow -Wpointer-arith -Wvla -Wundef
# Contraction is off: a sum must round the same way in every kernel variant of one file.
COMMON   := $(OPT) -g -fno-omit-frame-pointer -ffp-contract=off -fstack-protector-strong -fPIC \
            -I. -D_GNU_SOURCE -DINFERD_VERSION='"$(VERSION)"' -MMD -MP
CFLAGS   += -std=c11 $(WARN) -Wstrict-prototypes -Wmissing-prototypes $(COMMON)
CXXFLAGS += -std=c++17 $(WARN) $(COMMON)
LDLIBS   := -lmicrohttpd -ljansson -lsentencepiece -lpcre2-8 -lutf8proc -lcurl -lstdc++ -lpthread -ldl -lm
LDFLAGS  += -rdynamic

ifeq ($(SAN),asan)
SANFLAGS := -fsanitize=address,undefined -fno-sanitize-recover=undefined
else ifeq ($(SAN),tsan)
SANFLAGS := -fsanitize=thread
endif
CFLAGS   += $(SANFLAGS)
CXXFLAGS += $(SANFLAGS)
LDFLAGS  += $(SANFLAGS)

# Three storeys, linked in this order: server -> engine (+ config) -> kernels (+ base).
ARCH := $(shell uname -m)
SERVER_SRC  := $(filter-out server/main.c,$(wildcard server/*.c server/*/*.c))
ENGINE_SRC  := $(wildcard engine/*.c engine/*/*.c engine/*/*/*.c config/*.c)
ENGINE_CXX  := $(wildcard engine/*/*.cc)
KERNELS_SRC := $(wildcard kernels/*.c kernels/quant/*.c kernels/cpu/*.c base/*.c)
ifeq ($(ARCH),x86_64)
KERNELS_SRC += $(wildcard kernels/cpu/x86/*.c)
endif

obj = $(patsubst %,$(BUILD)/obj/%.o,$(1))
SERVER_LIB  := $(BUILD)/libserver.a
ENGINE_LIB  := $(BUILD)/libengine.a
KERNELS_LIB := $(BUILD)/libkernels.a
LIBS := $(SERVER_LIB) $(ENGINE_LIB) $(KERNELS_LIB)

TEST_SRC := $(filter-out tests/fuzz/%,$(wildcard tests/test_*.c tests/*/test_*.c tests/*/*/test_*.c tests/*/*/*/test_*.c))
TESTS    := $(patsubst tests/%.c,$(BUILD)/tests/%,$(TEST_SRC))

.PHONY: all clean unit-tests run-unit-tests layering
all: $(BUILD)/inferd

$(BUILD)/inferd: $(call obj,server/main.c) $(LIBS)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(SERVER_LIB): $(call obj,$(SERVER_SRC))
$(ENGINE_LIB): $(call obj,$(ENGINE_SRC) $(ENGINE_CXX))
$(KERNELS_LIB): $(call obj,$(KERNELS_SRC))
$(LIBS):
	@mkdir -p $(@D)
	@rm -f $@
	ar rcs $@ $^

# Only these files may use instructions beyond the architecture's baseline; they run after a check.
simd = $(if $(findstring _avx512bf16.c,$(1)),-mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512bf16 -mfma -mf16c -mavx2,\
       $(if $(findstring _avx512.c,$(1)),-mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mf16c -mavx2,\
       $(if $(findstring _avx2.c,$(1)),-mavx2 -mfma -mf16c,)))
# Kernels are the hot loops.
hot = $(if $(filter kernels/cpu/%,$(1)),-O3,)

$(BUILD)/obj/%.c.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(call hot,$<) $(call simd,$<) -c -o $@ $<
$(BUILD)/obj/%.cc.o: %.cc
	@mkdir -p $(@D)
	$(CXX) $(CXXFLAGS) -c -o $@ $<

# --- tests ---------------------------------------------------------------------------------------
$(BUILD)/tests/%: tests/%.c $(LIBS)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -Wno-missing-prototypes $(LDFLAGS) -MF $@.d -o $@ $< $(TEST_EXTRA) $(LIBS) -lcmocka $(LDLIBS)

unit-tests: $(TESTS)
run-unit-tests: $(TESTS)
	@tests/run_unit.sh $(TESTS)

clean:
	rm -rf $(BUILD)

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
