# inferd - one Makefile for everything. Two targets matter to a user:
#   make serve   install what is missing, build, start the daemon (MODEL=..., ARGS=...; without
#                MODEL a small one is fetched)
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
# Unrolled kernels take minutes to compile with a sanitizer's checks in them, and prove no more.
OPT ?= $(if $(SAN),-O1,-O2)

JOBS    ?= $(shell nproc)
SETUP   ?= ./setup.sh
VENV    ?= build/venv
PREFIX  ?= /usr/local
DESTDIR ?=

WARN     := -Wall -Wextra -Werror -Wshadow -Wpointer-arith -Wvla -Wundef
# Contraction is off: a sum must round the same way in every kernel variant of one file.
COMMON   := $(OPT) -g -fno-omit-frame-pointer -ffp-contract=off -fstack-protector-strong -fPIC \
            -I. -D_GNU_SOURCE -DINFERD_VERSION='"$(VERSION)"' -MMD -MP
CFLAGS   += -std=c11 $(WARN) -Wstrict-prototypes -Wmissing-prototypes $(COMMON)
CXXFLAGS += -std=c++17 $(WARN) $(COMMON)
LDLIBS   := -lmicrohttpd -ljansson -lsentencepiece -lpcre2-8 -lutf8proc -lcurl -lcrypto -lstdc++ -lpthread -ldl -lm
LDFLAGS  += -rdynamic -Wl,--build-id

ifeq ($(SAN),asan)
SANFLAGS := -fsanitize=address,undefined -fno-sanitize-recover=undefined
else ifeq ($(SAN),tsan)
SANFLAGS := -fsanitize=thread
else ifeq ($(SAN),fuzz)
SANFLAGS := -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined
endif
CFLAGS   += $(SANFLAGS)
# Checks of C++ types need a runtime that a program linked by clang does not have.
CXXFLAGS += $(SANFLAGS) $(if $(filter fuzz,$(SAN)),-fno-sanitize=vptr -fno-sanitize=function)
LDFLAGS  += $(SANFLAGS)

# Three storeys, linked in this order: server -> engine (+ config) -> kernels (+ base).
ARCH := $(shell uname -m)
SERVER_SRC  := $(filter-out server/main.c,$(wildcard server/*.c server/*/*.c))
ENGINE_SRC  := $(wildcard engine/*.c engine/*/*.c engine/*/*/*.c config/*.c)
ENGINE_CXX  := $(wildcard engine/*/*.cc)
KERNELS_SRC := $(wildcard kernels/*.c kernels/quant/*.c kernels/cpu/*.c kernels/profile/*.c base/*.c)
ifeq ($(ARCH),x86_64)
KERNELS_SRC += $(wildcard kernels/cpu/x86/*.c)
endif

# --- the CUDA plug-in: built where there is an nvcc; CUDA=no leaves it out ---------------------------
CUDA      ?= auto
CUDA_HOME ?= $(firstword $(patsubst %/bin/nvcc,%,$(wildcard /usr/local/cuda/bin/nvcc)) \
               $(patsubst %/bin/nvcc,%,$(realpath $(shell command -v nvcc 2>/dev/null))))
NVCC      ?= $(wildcard $(CUDA_HOME)/bin/nvcc)
# Real architectures; the lowest is kept as PTX too, which newer GPUs compile when they load it.
CUDA_ARCHS ?= 80 90a
CUDA_SRC  := $(wildcard kernels/cuda/*.cu)
CUDA_C    := $(wildcard kernels/cuda/*.c)
CUDA_LOW  := $(firstword $(CUDA_ARCHS))
GENCODE   := -gencode arch=compute_$(CUDA_LOW),code=[sm_$(CUDA_LOW),compute_$(CUDA_LOW)] \
             $(foreach a,$(filter-out $(CUDA_LOW),$(CUDA_ARCHS)),-gencode arch=compute_$(a),code=sm_$(a))
PLUGIN    := $(if $(SAN),,$(if $(filter no,$(CUDA)),,$(if $(NVCC),$(BUILD)/inferd_cuda.so)))
# The same sources for the host's compiler, with tests/cuda_emu for the device and its runtime.
EMU       := $(BUILD)/inferd_cuda_emu.so
EMU_INC   := -Itests/cuda_emu/include
# And for NCCL, which the plug-in looks for when it runs.
EMU_NCCL  := $(BUILD)/emu/libnccl.so.2
# In a folder of its own: beside a plug-in for a real GPU it would be taken for NVIDIA's.
EMU_BLAS  := $(BUILD)/emu/libcublasLt.so.13

# One short line per file; V=1 shows the commands.
V   ?=
run = $(if $(V),,@echo "  $(1) $@" && )

obj = $(patsubst %,$(BUILD)/obj/%.o,$(1))
SERVER_LIB  := $(BUILD)/libserver.a
ENGINE_LIB  := $(BUILD)/libengine.a
KERNELS_LIB := $(BUILD)/libkernels.a
LIBS := $(SERVER_LIB) $(ENGINE_LIB) $(KERNELS_LIB)

TEST_SRC := $(filter-out tests/fuzz/%,$(wildcard tests/test_*.c tests/*/test_*.c tests/*/*/test_*.c tests/*/*/*/test_*.c))
TESTS    := $(patsubst tests/%.c,$(BUILD)/tests/%,$(TEST_SRC))

.PHONY: default all cuda cuda-resources clean serve test test-hub check unit-tests run-unit-tests venv asan tsan fuzz bench lint layering \
        format install check-install sample models-table
# `make` alone is all there is; `make all` leaves out the plug-in, which takes nvcc a minute or two.
default: all cuda
all: $(BUILD)/inferd
cuda: $(PLUGIN)
# Registers and spills of the hot kernels, as nvcc reported them, within their bounds.
cuda-resources: $(PLUGIN)
	@$(if $(PLUGIN),python3 tests/gpu/cuda_resources.py $(BUILD)/obj/kernels/cuda $(if $(TABLE),--table),\
	    echo "cuda-resources: no nvcc here, nothing is looked at")

$(BUILD)/inferd: $(call obj,server/main.c) $(LIBS)
	@mkdir -p $(@D)
	$(call run,LINK)$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(SERVER_LIB): $(call obj,$(SERVER_SRC))
$(ENGINE_LIB): $(call obj,$(ENGINE_SRC) $(ENGINE_CXX))
$(KERNELS_LIB): $(call obj,$(KERNELS_SRC))
$(LIBS):
	@mkdir -p $(@D)
	@rm -f $@
	$(call run,AR  )ar qcs $@ $^

# Only these files may use instructions beyond the architecture's baseline; they run after a check.
simd = $(if $(findstring _avx512bf16.c,$(1)),-mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512bf16 -mfma -mf16c -mavx2,\
       $(if $(findstring _avx512.c,$(1)),-mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mf16c -mavx2,\
       $(if $(findstring _avx2.c,$(1)),-mavx2 -mfma -mf16c,)))
# Kernels are the hot loops.
hot = $(if $(SAN),,$(if $(filter kernels/cpu/% kernels/tensor.c,$(1)),-O3,))
# No fuzz target reaches them, and clang takes minutes to instrument what is unrolled there.
ifeq ($(SAN),fuzz)
hot = $(if $(filter kernels/cpu/%,$(1)),-O1 -fno-sanitize=all,)
endif

$(BUILD)/obj/%.c.o: %.c
	@mkdir -p $(@D)
	$(call run,CC  )$(CC) $(CFLAGS) $(call hot,$<) $(call simd,$<) -c -o $@ $<
$(BUILD)/obj/%.cc.o: %.cc
	@mkdir -p $(@D)
	$(call run,CXX )$(CXX) $(CXXFLAGS) -c -o $@ $<

# A compiler cache in front of the C compiler caches nvcc's work too.
$(BUILD)/obj/%.cu.o: %.cu
	@mkdir -p $(@D)
	$(call run,NVCC)$(filter ccache,$(CC)) $(NVCC) -std=c++17 -O3 -I. $(GENCODE) -Xcompiler -fPIC \
	    -Xptxas -v -MMD -MP -MF $@.d -c -o $@ $< 2>$@.ptxas || { cat $@.ptxas; rm -f $@.ptxas; false; }
$(BUILD)/obj/kernels/cuda/%.c.o: kernels/cuda/%.c
	@mkdir -p $(@D)
	$(call run,CC  )$(CC) $(CFLAGS) -isystem $(CUDA_HOME)/include -c -o $@ $<
# It takes the functions of base/ and kernels/ from the program that loads it.
$(BUILD)/inferd_cuda.so: $(call obj,$(CUDA_SRC) $(CUDA_C))
	$(call run,LINK)$(CXX) -shared -Wl,--exclude-libs,ALL -o $@ $^ \
	    $(firstword $(wildcard $(CUDA_HOME)/lib64/libcudart_static.a $(CUDA_HOME)/lib/libcudart_static.a)) \
	    -lpthread -ldl -lrt

emu_obj = $(patsubst %,$(BUILD)/emu/%.o,$(1))
# Fibers are nothing that the thread sanitizer knows: what runs on them is not instrumented.
EMU_FLAGS := $(EMU_INC) -fno-strict-aliasing -Wno-unknown-pragmas -Wno-unused-function -Wno-shadow \
             $(if $(filter tsan,$(SAN)),-fno-sanitize=all)
$(BUILD)/emu/%.cu.o: %.cu
	@mkdir -p $(@D)
	$(call run,EMU )$(CXX) -x c++ $(CXXFLAGS) $(EMU_FLAGS) -c -o $@ $<
$(BUILD)/emu/%.cc.o: %.cc
	@mkdir -p $(@D)
	$(call run,CXX )$(CXX) $(CXXFLAGS) $(EMU_FLAGS) -c -o $@ $<
$(BUILD)/emu/%.c.o: %.c
	@mkdir -p $(@D)
	$(call run,CC  )$(CC) $(CFLAGS) $(EMU_INC) -c -o $@ $<
$(EMU_NCCL): tests/cuda_emu/fake_nccl.c
	@mkdir -p $(@D)
	$(call run,LINK)$(CC) $(CFLAGS) -Wno-missing-prototypes $(EMU_INC) -MF $(BUILD)/emu/fake_nccl.d -shared \
	    -Wl,-soname,libnccl.so.2 -o $@ $< -lpthread -ldl
$(EMU): $(call emu_obj,$(CUDA_SRC) $(CUDA_C) $(filter-out %/cublaslt.cc,$(wildcard tests/cuda_emu/*.cc))) | $(EMU_BLAS)
	$(call run,LINK)$(CXX) $(SANFLAGS) -shared -o $@ $(filter %.o,$^) -lpthread -ldl -lm
# And with the race detector: the kernels call it at each access to memory. -fsanitize=thread only
# puts the calls in; the functions are tests/cuda_emu/race's.
EMU_RACE := $(if $(SAN),,$(BUILD)/inferd_cuda_emu_racecheck.so)
race_obj = $(patsubst %,$(BUILD)/emu-race/%.o,$(1))
EMU_DEVICE := $(call race_obj,tests/cuda_emu/grid.cc $(wildcard tests/cuda_emu/race/*.cc)) \
              $(call emu_obj,$(filter-out %/cublaslt.cc %/grid.cc,$(wildcard tests/cuda_emu/*.cc)))
$(BUILD)/emu-race/%.cu.o: %.cu
	@mkdir -p $(@D)
	$(call run,RACE)$(CXX) -x c++ $(CXXFLAGS) -O1 $(EMU_FLAGS) -DEMU_RACECHECK -fsanitize=thread \
	    --param=tsan-instrument-func-entry-exit=0 --param=tsan-distinguish-volatile=1 -c -o $@ $<
$(BUILD)/emu-race/%.cc.o: %.cc
	@mkdir -p $(@D)
	$(call run,CXX )$(CXX) $(CXXFLAGS) $(EMU_FLAGS) -DEMU_RACECHECK -c -o $@ $<
$(EMU_RACE): $(call race_obj,$(CUDA_SRC)) $(call emu_obj,$(CUDA_C)) $(EMU_DEVICE) | $(EMU_BLAS)
	$(call run,LINK)$(CXX) -shared -o $@ $(filter %.o,$^) -lpthread -ldl -lm
# The detector's own test has kernels of its own.
RACE_KERNELS := $(if $(SAN),,$(BUILD)/race_kernels.so)
$(RACE_KERNELS): $(call race_obj,tests/cuda_emu/race_kernels.cu) $(EMU_DEVICE)
	$(call run,LINK)$(CXX) -shared -o $@ $(filter %.o,$^) -lpthread -ldl -lm
$(EMU_BLAS): $(call emu_obj,tests/cuda_emu/cublaslt.cc)
	$(call run,LINK)$(CXX) $(SANFLAGS) -shared -Wl,-soname,$(@F) -o $@ $^ -lpthread -ldl

# --- the two targets of a user ---------------------------------------------------------------------
# Without MODEL: SmolLM2-135M-Instruct, from wherever it can be had (default_model.sh).
MODEL ?=
serve:
	@$(SETUP) build $(if $(MODEL),,python)
	@$(MAKE) --no-print-directory -j$(JOBS) default
	@model="$(MODEL)"; \
	[ -n "$$model" ] || model=$$(./default_model.sh $(BUILD)/inferd $(BUILD)) || exit 1; \
	exec $(BUILD)/inferd serve "$$model" $(ARGS)

test:
	@$(SETUP) build test
	@$(MAKE) --no-print-directory -j$(JOBS) default
	@$(MAKE) --no-print-directory check

# --- tests ---------------------------------------------------------------------------------------
# A directory's support_*.c are part of each of its tests.
.SECONDARY:
.SECONDEXPANSION:
$(BUILD)/tests/%: tests/%.c $$(call obj,$$(wildcard tests/$$(dir $$*)support_*.c)) $(LIBS)
	@mkdir -p $(@D)
	$(call run,TEST)$(CC) $(CFLAGS) -Wno-missing-prototypes $(LDFLAGS) -MF $@.d -o $@ $< $(filter %.o,$^) $(TEST_EXTRA) $(LIBS) -lcmocka $(LDLIBS)

GPU_BENCHES := $(addprefix $(BUILD)/tests/bench/,bench_copy bench_attention_gpu)
# A plug-in takes what it needs of base/ and kernels/ from the program that loads it.
$(BUILD)/tests/kernels/cuda/% $(GPU_BENCHES): TEST_EXTRA = \
    -Wl,--whole-archive $(KERNELS_LIB) -Wl,--no-whole-archive
# Where NVIDIA's header is, our declarations are compared with it.
$(BUILD)/tests/kernels/cuda/test_cublaslt_api: CFLAGS += $(if $(wildcard $(CUDA_HOME)/include/cublasLt.h),\
    -DINFERD_HAVE_CUBLASLT -isystem $(CUDA_HOME)/include,$(EMU_INC))
$(BUILD)/tests/kernels/cuda/test_cublaslt: CFLAGS += $(EMU_INC)
# It uses a part of the fixtures.
$(BUILD)/tests/kernels/cuda/profile_kernels: CFLAGS += -Wno-unused-function

unit-tests: $(TESTS) $(EMU) $(EMU_RACE) $(RACE_KERNELS) $(EMU_NCCL) $(GPU_BENCHES)
run-unit-tests: $(TESTS) $(EMU) $(EMU_RACE) $(RACE_KERNELS) $(EMU_NCCL)
	@tests/run_unit.sh $(TESTS)

# The CUDA backend's tests with the race detector: two minutes, of which the unit tests have a part.
RACE_TESTS = $(filter-out %/test_cublaslt %/test_cublaslt_api,$(filter $(BUILD)/tests/kernels/cuda/%,$(TESTS))) \
             $(BUILD)/tests/engine/model/test_arch_cuda
.PHONY: emu-racecheck
emu-racecheck: $(RACE_TESTS) $(EMU_RACE) $(EMU_NCCL)
	@INFERD_TEST_PLUGIN=$(realpath .)/$(EMU_RACE) tests/run_unit.sh $(RACE_TESTS)

# What hot kernels ask of global and shared memory, from profile_kernels.c, by kernel and line.
EMU_PROFILE ?= $(BUILD)/emu-profile.tsv
PROFILED := $(BUILD)/tests/kernels/cuda/profile_kernels
.PHONY: emu-profile
emu-profile: $(PROFILED) $(EMU_RACE)
	@rm -f $(EMU_PROFILE)
	@INFERD_TEST_PLUGIN=$(realpath .)/$(EMU_RACE) INFERD_TEST_SEED=1 EMU_PROFILE=$(EMU_PROFILE) $(PROFILED) >/dev/null
	@python3 tests/cuda_emu/profile_table.py $(EMU_PROFILE)

# Everything, with what is installed: unit tests, then pytest against $(BUILD)/inferd.
check:
	@$(MAKE) --no-print-directory -j$(JOBS) all unit-tests venv
	@BUILD=$(BUILD) VENV=$(VENV) SAN=$(SAN) JOBS=$(JOBS) tests/run_all.sh $(TESTS)

venv: $(VENV)/.done
$(VENV)/.done: tests/requirements.txt
	python3 -m venv $(VENV)
	$(VENV)/bin/python -m pip install -q --disable-pip-version-check -r $<
	@touch $@

asan:
	@ASAN_OPTIONS=detect_leaks=1:abort_on_error=0 UBSAN_OPTIONS=print_stacktrace=1 \
	    $(MAKE) --no-print-directory SAN=asan BUILD=build-asan check
tsan:
	@TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1 \
	    $(MAKE) --no-print-directory SAN=tsan BUILD=build-tsan check

# Each target for FUZZ_SECONDS, from its committed corpus; what it finds on top stays in build-fuzz/.
FUZZ_SECONDS ?= 300
FUZZERS := $(patsubst tests/fuzz/%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
fuzz:
	@$(SETUP) build fuzz
	@$(MAKE) --no-print-directory -j$(JOBS) SAN=fuzz CC=clang CXX=clang++ BUILD=build-fuzz fuzzers
	@FUZZ_SECONDS=$(FUZZ_SECONDS) tests/run_fuzz.sh build-fuzz $(FUZZERS)
.PHONY: fuzzers
fuzzers: $(FUZZERS:%=$(BUILD)/fuzz/%)
$(BUILD)/fuzz/%: tests/fuzz/%.c $(call obj,$(wildcard tests/fuzz/support_*.c)) $(LIBS)
	@mkdir -p $(@D)
	$(call run,FUZZ)$(CC) $(CFLAGS) -Wno-missing-prototypes $(LDFLAGS) -fsanitize=fuzzer -MF $@.d -o $@ $< $(filter %.o,$^) $(LIBS) $(LDLIBS)

# 600 MB from the hub of the tests, under each fault and ten kills; and huggingface_hub on our cache.
test-hub: all venv
	@[ -n "$(INFERD_HUB_PYTHON)" ] || $(VENV)/bin/python -m pip install -q \
	    --disable-pip-version-check -r tests/requirements-hub.txt
	@INFERD_BIN=$(realpath .)/$(BUILD)/inferd INFERD_HUB_LARGE=1 $(VENV)/bin/python -m pytest -q \
	    -o cache_dir=$(BUILD)/pytest_cache tests/e2e/test_hub_large.py tests/e2e/test_hub_python.py

bench: all
	@tests/bench/run.sh $(BUILD)/inferd

# --- a real GPU: each fails, saying so, where there is none ------------------------------------------
CUDA_TESTS := $(filter $(BUILD)/tests/kernels/cuda/% $(BUILD)/tests/engine/exec/test_graph_pool \
              $(BUILD)/tests/engine/model/test_arch_cuda,$(TESTS))
.PHONY: test-gpu bench-gpu bench-gpu-server bundle bundle-only
# What they do runs in the tests, too, on the emulated device.
test-gpu: default $(CUDA_TESTS)
	@python3 tests/gpu/check_gpu.py --build $(BUILD)
bench-gpu: default $(GPU_BENCHES)
	@python3 tests/gpu/bench_gpu.py engine --build $(BUILD)
bench-gpu-server: default
	@python3 tests/gpu/bench_gpu.py server --build $(BUILD)

# --- a folder that runs anywhere ------------------------------------------------------------------
# BUNDLE_TESTS=1 puts the tests of the CUDA backend in, and what ./test-gpu and ./bench-gpu there need.
BUNDLE       ?= $(BUILD)/bundle
BUNDLE_TESTS ?=
# Where NVIDIA's packages, or wheels that this Python has, put it; empty: it is left out.
NCCL ?= $(firstword $(realpath $(wildcard $(addsuffix /libnccl.so.2,$(CUDA_HOME)/lib64 $(CUDA_HOME)/lib \
          /usr/lib/$(ARCH)-linux-gnu /usr/lib64 /usr/local/lib \
          $(wildcard $(addsuffix /nvidia/nccl/lib,$(PYTHON_SITES)))))))
PYTHON_SITES = $(shell python3 -c 'import site; print(*site.getsitepackages())' 2>/dev/null)
BUNDLED_TESTS = $(CUDA_TESTS) $(GPU_BENCHES) $(EMU)
bundle: default $(if $(BUNDLE_TESTS),$(BUNDLED_TESTS))
	@$(MAKE) --no-print-directory bundle-only
bundle-only: $(BUILD)/inferd-bundled
	@NCCL='$(NCCL)' ./bundle.sh $< '$(wildcard $(BUILD)/inferd_cuda.so)' $(BUNDLE) $(if $(BUNDLE_TESTS),$(BUNDLED_TESTS))
$(BUILD)/inferd-bundled: $(call obj,server/main.c) $(LIBS)
	$(call run,LINK)$(CC) $(LDFLAGS) -Wl,--disable-new-dtags,-rpath,'$$ORIGIN/../lib' -o $@ $^ $(LDLIBS)

# --- lint ----------------------------------------------------------------------------------------
OWN := $(shell git ls-files '*.[ch]' '*.cc' '*.cu' '*.cuh' 2>/dev/null)
lint: layering
	@$(SETUP) lint
	@$(MAKE) --no-print-directory venv
	@$(VENV)/bin/clang-format --dry-run -Werror $(OWN)
	@shellcheck setup.sh bundle.sh default_model.sh .ci/run $(shell git ls-files 'tests/*.sh')
	@JOBS=$(JOBS) tests/lint.sh $(filter-out tests/%,$(OWN))
format: venv
	$(VENV)/bin/clang-format -i $(OWN)
layering:
	@tests/layering.sh
sample: $(BUILD)/tests/config/write_sample
	$< > config/inferd.json
models-table: $(BUILD)/tests/engine/model/arch/write_models_table
	$< < engine/model/README.md > $(BUILD)/models-table.md
	cp $(BUILD)/models-table.md engine/model/README.md

# --- install -------------------------------------------------------------------------------------
# A configuration that is there already stays as it is.
SYSCONFDIR ?= /etc
DOCS := $(wildcard README.md LICENSE CONTRIBUTING.md)
conf := $(DESTDIR)$(SYSCONFDIR)/inferd
share := $(DESTDIR)$(PREFIX)/share/doc/inferd
units := $(DESTDIR)$(PREFIX)/lib/systemd/system
install: all
	install -D -m 755 $(BUILD)/inferd $(DESTDIR)$(PREFIX)/bin/inferd
	install -d $(conf) $(share) $(units)
	test -e $(conf)/inferd.json || install -m 644 config/inferd.json $(conf)/inferd.json
	test -e $(conf)/inferd.env || install -m 600 systemd/inferd.env $(conf)/inferd.env
	install -m 644 $(DOCS) config/inferd.json systemd/inferd.env $(share)
	sed -e 's,/usr/bin/inferd,$(PREFIX)/bin/inferd,' -e 's,/usr/share/doc,$(PREFIX)/share/doc,' \
	    -e 's,/etc/inferd,$(SYSCONFDIR)/inferd,' systemd/inferd.service > $(units)/inferd.service
	chmod 644 $(units)/inferd.service
check-install: all
	@tests/deploy/check_install.sh $(BUILD)

clean:
	rm -rf $(BUILD) build-asan build-tsan build-fuzz

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
