"""The daemon with --device cuda. The device is the emulated one: a copy of the daemon, with
inferd_cuda_emu.so beside it under the plug-in's name. INFERD_TEST_PLUGIN names another plug-in, for
a real device."""
import concurrent.futures
import json
import math
import os
import pathlib
import re
import shutil

import pytest

from conftest import BIN, ROOT, Server, run_inferd

PLUGIN = pathlib.Path(os.environ.get("INFERD_TEST_PLUGIN",
                                     pathlib.Path(BIN).parent / "inferd_cuda_emu.so"))

QUANTIZED_BOUND = 0.02
# A difference of 2^-12 in a key moves some to the next code, and what follows by as much as that is.
CACHE_BOUND = 0.15


@pytest.fixture(scope="module")
def cuda_bin(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cuda")
    shutil.copy(BIN, folder / "inferd")
    shutil.copy(PLUGIN, folder / "inferd_cuda.so")
    return folder / "inferd"


@pytest.fixture(scope="module")
def stories(cuda_bin):
    from conftest import SHARED
    if not (SHARED / "goldens.json").exists():
        pytest.skip("../shared/models is not here")
    s = Server(SHARED / "stories260K", "--device", "cuda", "--cudagraph-capture-sizes", "2,4,8",
               binary=cuda_bin)
    yield s
    assert s.stop() == 0, s.read_log()[-4000:]


@pytest.fixture(scope="module")
def stories_cpu():
    from conftest import SHARED
    if not (SHARED / "goldens.json").exists():
        pytest.skip("../shared/models is not here")
    s = Server(SHARED / "stories260K", "--device", "cpu")
    yield s
    assert s.stop() == 0, s.read_log()[-4000:]


def complete_all(server, bodies):
    """All at once."""
    def one(body):
        status, reply = server.post("/v1/completions", body)
        assert status == 200, reply
        return reply["choices"][0]
    with concurrent.futures.ThreadPoolExecutor(len(bodies)) as pool:
        return list(pool.map(one, bodies))


def run(binary, *args, **more_env):
    return run_inferd(*args, env=more_env, binary=binary)


def test_float32_goldens(stories, shared_models):
    prompts = json.loads((shared_models / "goldens.json").read_text())["prompts"]
    bodies = [{"prompt": p["ids"], "temperature": 0, "max_tokens": 32, "ignore_eos": True,
               "return_token_ids": True} for p in prompts]
    for p, choice in zip(prompts, complete_all(stories, bodies)):
        assert choice["token_ids"] == p["greedy_ids"][:32], p["name"]


def test_sampling_is_the_cpus(stories, stories_cpu):
    base = {"prompt": "Once upon a time", "max_tokens": 24, "return_token_ids": True,
            "ignore_eos": True, "seed": 5, "temperature": 1.0}
    changes = [
        {}, {"top_k": 5}, {"top_p": 0.6}, {"min_p": 0.1, "top_k": 40, "top_p": 0.9},
        {"temperature": 0, "repetition_penalty": 1.8, "frequency_penalty": 1, "presence_penalty": 1},
        {"temperature": 0, "allowed_token_ids": [286, 261, 376, 298, 400]},
        {"temperature": 0, "logit_bias": {"432": -100, "383": 3}},
        {"allowed_token_ids": list(range(300, 420)), "repetition_penalty": 1.3, "min_tokens": 5},
    ]
    bodies = [dict(base, **c) for c in changes]
    expected = complete_all(stories_cpu, bodies)
    for body, want, got in zip(bodies, expected, complete_all(stories, bodies)):
        assert got["token_ids"] == want["token_ids"], body


def test_bfloat16_is_near_the_reference(cuda_bin, shared_models, start_server):
    """Log-probabilities of the five best tokens, from the tensor cores' kernels."""
    server = start_server(shared_models / "stories260K-bf16", "--device", "cuda", "--enforce-eager",
                          binary=cuda_bin)
    prompts = json.loads((shared_models / "goldens-bf16.json").read_text())["prompts"]
    for p, best in zip(prompts, best_logprobs(server, prompts)):
        most = max(p["logits"])
        log_sum = most + math.log(sum(math.exp(x - most) for x in p["logits"]))
        for token, logprob in best.items():
            want = p["logits"][int(token.split(":")[1])] - log_sum
            assert abs(logprob - want) < 0.2, p["name"]


def test_bits_do_not_depend_on_the_batch(cuda_bin, shared_models, start_server):
    """Alone or with others, a prompt whole or in chunks, from the prefix cache or not; op by op, or
    from graphs, padded or whole or too large for one."""
    texts = ["Once upon a time", "One day, Lily met a dog. " * 4, "Tim and Sue were friends. " * 6]
    bodies = [{"prompt": t, "temperature": 0, "max_tokens": 12, "logprobs": 2, "ignore_eos": True}
              for t in texts]
    model = shared_models / "stories260K-bf16"
    alone = start_server(model, "--device", "cuda", "--no-enable-prefix-caching", "--enforce-eager",
                         binary=cuda_bin)
    want = [complete_all(alone, [b])[0] for b in bodies]
    options = [("full", "2,4"), ("lazy", "2"), ("none", "2")]
    for mode, sizes in options:
        crowd = start_server(model, "--device", "cuda", "--max-num-batched-tokens", "32",
                             "--cudagraph-mode", mode, "--cudagraph-capture-sizes", sizes,
                             binary=cuda_bin)
        for _ in range(2):
            for choice, expected in zip(complete_all(crowd, bodies), want):
                assert choice["logprobs"] == expected["logprobs"], mode
                assert choice["text"] == expected["text"], mode
        assert crowd.metric("vllm:prefix_cache_hits_total") > 0


def best_logprobs(server, prompts):
    """Of the five best first tokens of each prompt."""
    bodies = [{"prompt": p["ids"], "temperature": 0, "max_tokens": 1, "logprobs": 5,
               "return_tokens_as_token_ids": True} for p in prompts]
    return [c["logprobs"]["top_logprobs"][0] for c in complete_all(server, bodies)]


def distance(want, got):
    """The greatest between log-probabilities of tokens that both have."""
    gaps = [abs(w[t] - g[t]) for w, g in zip(want, got) for t in w if t in g]
    assert len(gaps) >= 4 * len(want)
    return max(gaps)


@pytest.mark.parametrize("mode", ["full", "none"])
def test_drafts_change_no_bit(cuda_bin, shared_models, start_server, mode):
    """Greedy and drawn, alone, where all drafts of a step may be in a graph, and with others."""
    base = {"max_tokens": 20, "logprobs": 2, "ignore_eos": True}
    bodies = [dict(base, prompt="One day, Lily met a dog. " * 4, temperature=0),
              dict(base, prompt="the the the the", temperature=0, repetition_penalty=0.8),
              dict(base, prompt="Tim and Sue. Tim and Sue. Tim and", temperature=0.7, seed=3)]
    model = shared_models / "stories260K-bf16"
    plain = start_server(model, "--device", "cuda", "--enforce-eager", binary=cuda_bin)
    want = [complete_all(plain, [b])[0] for b in bodies]
    ngram = {"method": "ngram", "num_speculative_tokens": 2, "prompt_lookup_max": 2, "prompt_lookup_min": 1}
    server = start_server(model, "--device", "cuda", "--cudagraph-mode", mode, "--cudagraph-capture-sizes",
                          "1,2", "--speculative-config", json.dumps(ngram), binary=cuda_bin)
    assert [complete_all(server, [b])[0] for b in bodies] == want
    assert complete_all(server, bodies) == want
    assert server.metric("vllm:spec_decode_num_accepted_tokens_total") > 0
    graphs = re.search(r"captured (\d+) graphs", server.read_log())
    assert (graphs and int(graphs[1])) == (4 if mode == "full" else None), server.read_log()


@pytest.mark.parametrize("quantization", ["int4", "int8", "fp8"])
def test_quantized_weights_are_near_the_cpus(cuda_bin, shared_models, start_server, quantization):
    """The same packed weights; activations and dequantized weights are rounded to 16 bits."""
    model = shared_models / "stories260K"
    prompts = json.loads((shared_models / "goldens.json").read_text())["prompts"]
    options = ["--quantization", quantization]
    cpu = start_server(model, "--device", "cpu", *options)
    cuda = start_server(model, "--device", "cuda", *options, binary=cuda_bin)
    plain = start_server(model, "--device", "cpu")
    want, got = best_logprobs(cpu, prompts), best_logprobs(cuda, prompts)
    assert distance(want, got) < QUANTIZED_BOUND
    # Which is less than what quantizing them changed.
    assert distance(best_logprobs(plain, prompts), got) > QUANTIZED_BOUND


@pytest.mark.parametrize("dtype", ["fp8", "int8"])
def test_8_bit_caches_are_near_the_cpus(cuda_bin, shared_models, start_server, dtype):
    """What prompts and decode steps, in chunks and with prefix hits, read of the same bytes."""
    model = shared_models / "stories260K"
    options = ["--kv-cache-dtype", dtype, "--max-num-batched-tokens", "64"]
    cpu = start_server(model, "--device", "cpu", *options)
    cuda = start_server(model, "--device", "cuda", *options, binary=cuda_bin)
    plain = start_server(model, "--device", "cpu")
    texts = ["Once upon a time", "One day, Lily met a dog. " * 4, "Tim and Sue were friends. " * 6]
    prompts = [{"ids": cpu.post("/tokenize", {"prompt": t})[1]["tokens"]} for t in texts]
    want = best_logprobs(cpu, prompts)
    for _ in range(2):
        got = best_logprobs(cuda, prompts)
        assert distance(want, got) < CACHE_BOUND
    # Which is less than what 8 bits changed.
    assert distance(best_logprobs(plain, prompts), got) > 2 * distance(want, got)
    # And so through the decode steps that follow.
    bodies = [{"prompt": p["ids"], "temperature": 0, "max_tokens": 12, "logprobs": 0,
               "ignore_eos": True, "return_token_ids": True} for p in prompts]
    for a, b in zip(complete_all(cpu, bodies), complete_all(cuda, bodies)):
        pairs = zip(a["token_ids"], b["token_ids"], a["logprobs"]["token_logprobs"],
                    b["logprobs"]["token_logprobs"])
        for one, other, x, y in pairs:
            if one != other:
                break
            assert abs(x - y) < CACHE_BOUND


# mxfp4's answers are small, and the CPU's own in bfloat16 are 0.004 of the largest away from its
# float32 ones: so may CUDA's be, on the other side.
@pytest.mark.parametrize("name, bound", [("awq_g32", 0.005), ("gptq_8bit_g32_act_order", 0.005),
                                         ("fp8_block", 0.005), ("bnb_nf4_double", 0.005),
                                         ("fp8_block_deepseek", 0.005), ("mxfp4", 0.008)])
def test_quantized_checkpoints(cuda_bin, start_server, tmp_path, name, bound):
    check_quantized_checkpoint(cuda_bin, start_server, tmp_path, name, bound)


# What 16 bits change of an activation turns some of its codes over, of which one is a lot; in float32
# the same codes are multiplied.
@pytest.mark.parametrize("name", ["ct_w8a8_int8", "ct_fp8_dynamic", "ct_fp8_static", "fp8_tensor"])
def test_checkpoints_with_8_bit_activations(cuda_bin, start_server, tmp_path, name):
    check_quantized_checkpoint(cuda_bin, start_server, tmp_path, name, 0.0002, "--dtype", "float32")


def copy_golden(tmp_path, name):
    """With a tokenizer."""
    model = tmp_path / name
    shutil.copytree(ROOT / "tests" / "golden" / "quant" / name, model)
    words = {"type": "WordLevel", "unk_token": "[UNK]", "vocab": {"[UNK]": 0, "a": 1, "b": 2}}
    (model / "tokenizer.json").write_text(json.dumps({"version": "1.0", "model": words}))
    return model


def check_quantized_checkpoint(cuda_bin, start_server, tmp_path, name, bound, *options):
    """Near the CPU's answers; what a plan for a GPU that is not here says is what is taken."""
    model = copy_golden(tmp_path, name)
    prompts = [{"ids": [(7 * i + n) % 60 + 3 for i in range(n)]} for n in (1, 5, 20)]
    common = ["--max-num-seqs", "4", "--kv-cache-memory-bytes", "4M", *options]
    cpu = start_server(model, "--device", "cpu", *common)
    cuda = start_server(model, "--device", "cuda", *common, binary=cuda_bin)
    want, got = best_logprobs(cpu, prompts), best_logprobs(cuda, prompts)
    print(name, "off by", distance(want, got))
    # Weights, activations and the KV cache are bfloat16: 2^-9 of a number each.
    largest = max(abs(x) for best in want for x in best.values())
    assert distance(want, got) < bound * largest
    taken = re.search(r"memory taken: (\d+) bytes, planned: (\d+)", cuda.read_log())
    plan = json.loads(run(cuda_bin, "plan", model, "--device", "H100", "--json", *common).stdout)
    assert int(taken[1]) == int(taken[2]) == plan["total_bytes"] - plan["graph_bytes"]


def test_plan_matches(cuda_bin, tiny_model):
    plan = json.loads(run(cuda_bin, "plan", tiny_model, "--device", "cuda", "--json").stdout)
    assert plan["kv_cache_bytes"] == plan["num_blocks"] * plan["block_bytes"]
    assert plan["total_bytes"] < plan["memory_available_bytes"]
    assert plan["graph_bytes"] > 0
    eager = json.loads(run(cuda_bin, "plan", tiny_model, "--device", "cuda", "--enforce-eager",
                           "--json").stdout)
    assert eager["graph_bytes"] == 0
    # A profile plans with the sizes of this backend.
    profile = json.loads(run(cuda_bin, "plan", tiny_model, "--device", "H100", "--json").stdout)
    for key in ("weights_bytes", "workspace_bytes", "activation_bytes", "batch_bytes", "block_bytes",
                "graph_bytes"):
        assert profile[key] == plan[key], key


def test_graphs_are_captured_at_start(cuda_bin, tiny_model, start_server):
    server = start_server(tiny_model, "--device", "cuda", "--max-num-seqs", "5",
                          "--cudagraph-capture-sizes", "4,1,64", binary=cuda_bin)
    log = server.read_log()
    assert re.search(r"captured 2 graphs in [0-9.]+ s, [0-9.]+ MiB \(planned: [0-9.]+\)", log)
    taken, planned, free = re.search(r"device memory: ([0-9.]+) MiB taken since the plan, planned "
                                     r"([0-9.]+), free ([0-9.]+)", log).groups()
    assert 0 < float(taken) <= float(planned) and float(free) > 0
    lazy = start_server(tiny_model, "--device", "cuda", "--max-num-seqs", "2", "--cudagraph-mode",
                        "lazy", binary=cuda_bin)
    assert "up to 2 graphs are captured as steps ask for them" in lazy.read_log()
    eager = start_server(tiny_model, "--device", "cuda", "--cudagraph-mode", "full",
                         "--enforce-eager", binary=cuda_bin)
    assert "captured" not in eager.read_log()


def test_graphs_on_the_cpu_do_nothing(tiny_model):
    result = run(BIN, "plan", tiny_model, "--device", "cpu", "--cudagraph-mode", "full")
    assert result.returncode == 0
    assert "--cudagraph-mode full does nothing: device cpu captures no graphs" in result.stderr
    for args in [(), ("--enforce-eager",), ("--cudagraph-mode", "none")]:
        result = run(BIN, "plan", tiny_model, "--device", "cpu", *args)
        assert "does nothing" not in result.stderr, args
    result = run(BIN, "plan", tiny_model, "--device", "cpu", "--cudagraph-capture-sizes", "4,x")
    assert result.returncode == 1
    assert "--cudagraph-capture-sizes: '4,x' must be positive numbers" in result.stderr


def bring_library(cuda_bin, tmp_path):
    """The daemon with the library beside it."""
    with_library = tmp_path / "inferd"
    shutil.copy(cuda_bin, with_library)
    shutil.copy(cuda_bin.parent / "inferd_cuda.so", tmp_path)
    shutil.copy(PLUGIN.parent / "emu" / "libcublasLt.so.13", tmp_path)
    return with_library


@pytest.mark.skipif("INFERD_TEST_PLUGIN" in os.environ, reason="for the library's stand-in")
@pytest.mark.parametrize("name", ["ct_w8a8_int8", "ct_fp8_dynamic", "ct_fp8_static"])
def test_cublaslt_multiplies_codes(cuda_bin, start_server, tmp_path, name):
    """Whole numbers whatever the mode, to the same bits; floats only where bits may differ."""
    model = copy_golden(tmp_path, name)
    with_library = bring_library(cuda_bin, tmp_path)
    prompts = [{"ids": [(7 * i + n) % 60 + 3 for i in range(n)]} for n in (5, 20, 50)]
    options = ["--device", "cuda", "--dtype", "float32", "--max-num-seqs", "4",
               "--kv-cache-memory-bytes", "4M"]
    whole = name == "ct_w8a8_int8"
    want = best_logprobs(start_server(model, *options, binary=cuda_bin), prompts)
    servers = [start_server(model, *options, *more, binary=with_library)
               for more in ([], ["--no-batch-invariant"])]
    for server, used in zip(servers, (whole, True)):
        chosen = re.search(r"cuBLASLt .*; (\d+) algorithms for (\d+) shapes", server.read_log())
        assert bool(chosen and int(chosen[1]) > 0) == used
        got = best_logprobs(server, prompts)
        assert got == want if whole or not used else distance(want, got) < 0.001
        taken = re.search(r"memory taken: (\d+) bytes, planned: (\d+)", server.read_log())
        assert int(taken[1]) == int(taken[2])
    plan = json.loads(run(cuda_bin, "plan", model, "--device", "H100", "--json").stdout)
    assert (plan["workspace_bytes"] >= 32 << 20) == whole


@pytest.mark.skipif("INFERD_TEST_PLUGIN" in os.environ, reason="for the library's stand-in")
def test_cublaslt_does_what_may_depend_on_the_batch(cuda_bin, shared_models, start_server, tmp_path):
    """Only where it was asked for; its workspace is in the plan; without it kernels of ours do all."""
    model = shared_models / "stories260K-bf16"
    with_library = bring_library(cuda_bin, tmp_path)
    prompts = json.loads((shared_models / "goldens-bf16.json").read_text())["prompts"]
    options = ["--device", "cuda", "--enforce-eager"]
    invariant = start_server(model, *options, binary=with_library)
    variant = start_server(model, *options, "--no-batch-invariant", binary=with_library)
    missing = start_server(model, *options, "--no-batch-invariant", binary=cuda_bin)
    assert "cuBLASLt" not in invariant.read_log()
    chosen = re.search(r"cuBLASLt \S+, from (\S+): products of more than 16 rows; (\d+) algorithms "
                       r"for (\d+) shapes", variant.read_log())
    assert chosen and pathlib.Path(chosen[1]).parent == tmp_path
    assert int(chosen[2]) >= int(chosen[3]) > 0
    assert re.search("cuBLASLt is not used, kernels of ours do all products: neither "
                     "libcublasLt.so.13 nor libcublasLt.so.12 is beside", missing.read_log())
    want = best_logprobs(invariant, prompts)
    assert best_logprobs(missing, prompts) == want
    assert distance(want, best_logprobs(variant, prompts)) < 0.1
    plans = [json.loads(run(cuda_bin, "plan", model, "--device", "H100", "--json", *more).stdout)
             for more in ([], ["--no-batch-invariant"])]
    assert plans[1]["workspace_bytes"] - plans[0]["workspace_bytes"] == 32 << 20
    taken = re.search(r"memory taken: (\d+) bytes, planned: (\d+)", variant.read_log())
    assert int(taken[1]) == int(taken[2])


def test_a_gpu_by_its_number(cuda_bin, tiny_model):
    assert run(cuda_bin, "plan", tiny_model, "--device", "cuda:0").returncode == 0
    result = run(cuda_bin, "plan", tiny_model, "--device", "cuda:1")
    assert result.returncode == 1
    assert "--device cuda:1: there is no GPU 1: this machine shows 1" in result.stderr
    for name in ("cuda:", "cuda:x", "cuda:-1", "cuda:1x", "cuda:1000", "cuda1"):
        result = run(cuda_bin, "plan", tiny_model, "--device", name)
        assert result.returncode == 1
        assert f"--device {name}: it must be auto, cpu, cuda or cuda:N" in result.stderr


def test_too_much_memory(cuda_bin, tiny_model):
    result = run(cuda_bin, "serve", tiny_model, "--device", "cuda", "--num-gpu-blocks-override",
                 "100000000", "--port", "1")
    assert result.returncode == 1
    assert "on GPU 0" in result.stderr or "listen" in result.stderr, result.stderr


def test_auto_says_why_it_is_the_cpu(tmp_path, tiny_model, cuda_bin):
    lonely = tmp_path / "inferd"
    shutil.copy(BIN, lonely)
    result = run(lonely, "plan", tiny_model)
    assert result.returncode == 0, result.stderr
    assert "device auto: the CPU" in result.stderr
    assert "there is no inferd_cuda.so beside the program" in result.stderr
    result = run(lonely, "plan", tiny_model, "--device", "cuda")
    assert result.returncode == 1
    assert "--device cuda: there is no inferd_cuda.so" in result.stderr
    (tmp_path / "inferd_cuda.so").write_bytes(b"no object")
    result = run(lonely, "plan", tiny_model)
    assert result.returncode == 0, result.stderr
    assert "device auto: the CPU" in result.stderr and "inferd_cuda.so" in result.stderr


def test_auto_takes_the_gpu(tiny_model, cuda_bin):
    result = run(cuda_bin, "plan", tiny_model)
    assert result.returncode == 0, result.stderr
    assert "device auto: the CPU" not in result.stderr


# --- several ranks ------------------------------------------------------------------------------------

EMULATED = "INFERD_TEST_PLUGIN" not in os.environ
TWO_GPUS = {"EMU_DEVICE_COUNT": "2"}


def check_goldens(server, shared_models, length=12):
    prompts = json.loads((shared_models / "goldens.json").read_text())["prompts"]
    bodies = [{"prompt": p["ids"], "temperature": 0, "max_tokens": length, "ignore_eos": True,
               "return_token_ids": True} for p in prompts]
    for p, choice in zip(prompts, complete_all(server, bodies)):
        assert choice["token_ids"] == p["greedy_ids"][:length], p["name"]


@pytest.mark.skipif(not EMULATED, reason="needs two GPUs: the emulated ones")
@pytest.mark.parametrize("nccl", [False, True])
def test_ranks_on_two_gpus(cuda_bin, shared_models, start_server, nccl):
    """Through each other's memory, from graphs; and with NCCL, that is tests/cuda_emu/fake_nccl.c."""
    env = dict(TWO_GPUS)
    if nccl:
        env["LD_LIBRARY_PATH"] = str(PLUGIN.parent / "emu")
        env["FAKE_NCCL_RUNTIME"] = str(cuda_bin.parent / "inferd_cuda.so")
    server = start_server(shared_models / "stories260K", "--device", "cuda", "--tensor-parallel-size",
                          "2", "--cudagraph-capture-sizes", "2,8", binary=cuda_bin, env=env)
    log = server.read_log()
    assert "2 ranks, each on emulated device" in log
    assert ("meet through NCCL 2.32.3, and peer memory" if nccl else
            "meet through peer memory; no NCCL (libnccl.so.2: ") in log
    assert "captured 2 graphs" in log
    taken = re.search(r"memory taken: (\d+) bytes, planned: (\d+)", log)
    assert taken[1] == taken[2]
    check_goldens(server, shared_models)


def test_ranks_on_one_gpu(cuda_bin, shared_models, start_server):
    server = start_server(shared_models / "stories260K", "--device", "cuda", "--tensor-parallel-size",
                          "2", "--device-ids", "0,0", "--kv-cache-memory-bytes", "32M", binary=cuda_bin)
    assert "meet through threads of this process" in server.read_log()
    assert "no graphs: ranks that share a GPU meet on the host" in server.read_log()
    check_goldens(server, shared_models)


@pytest.mark.skipif(not EMULATED, reason="says what one GPU cannot do")
def test_more_ranks_than_gpus(cuda_bin, tiny_model):
    for device in "cuda", "auto":
        result = run(cuda_bin, "serve", tiny_model, "--device", device, "--tensor-parallel-size", "2")
        assert result.returncode == 1
        assert "there is no GPU 1: this machine shows 1" in result.stderr
        assert "--device-ids" in result.stderr
    result = run(cuda_bin, "plan", tiny_model, "--device", "cuda", "--device-ids", "1")
    assert result.returncode == 1 and "there is no GPU 1" in result.stderr
    result = run(cuda_bin, "plan", tiny_model, "--device", "cuda", "--tensor-parallel-size", "2",
                 "--device-ids", "0")
    assert result.returncode == 1
    assert "--device-ids 0 names 1 GPUs, and --tensor-parallel-size is 2" in result.stderr
    result = run(cuda_bin, "plan", tiny_model, "--device", "cuda:0", "--device-ids", "0")
    assert result.returncode == 1
    assert "--device cuda:0 and --device-ids 0 both number GPUs" in result.stderr


def test_plan_of_ranks(cuda_bin, tiny_model):
    """Each rank has a GPU for itself, or shares one; a plan for GPUs that are not here says the same."""
    options = ["--tensor-parallel-size", "2", "--kv-cache-memory-bytes", "8M", "--json"]

    def plan(*args):
        result = run(cuda_bin, "plan", tiny_model, *args, *options)
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)
    shared, alone = plan("--device", "cuda", "--device-ids", "0,0"), plan("--device", "H100")
    keys = ("weights_bytes", "activation_bytes", "workspace_bytes", "kv_cache_bytes", "batch_bytes")
    assert shared["tensor_parallel_size"] == alone["tensor_parallel_size"] == 2
    for p, ranks in (shared, 2), (alone, 1):
        assert p["total_bytes"] == ranks * (sum(p[k] for k in keys) + p["graph_bytes"])
    for key in keys:
        assert shared[key] == alone[key], key
    assert shared["comm_bytes"] == alone["comm_bytes"] == 0


@pytest.mark.skipif(not EMULATED, reason="needs two GPUs: the emulated ones")
def test_messages_are_in_the_budget(cuda_bin, tiny_model):
    """What ranks take to meet counts as theirs: the utilization is of all that they hold."""
    def plan(ranks):
        result = run(cuda_bin, "plan", tiny_model, "--device", "cuda", "--tensor-parallel-size", str(ranks),
                     "--json", "--max-num-seqs", "2048", "--gpu-memory-utilization", "0.25", EMU_DEVICE_COUNT="2")
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)
    alone, two = plan(1), plan(2)
    assert alone["comm_bytes"] == 0
    assert two["comm_bytes"] > 1 << 20
    assert two["memory_available_bytes"] + two["comm_bytes"] == alone["memory_available_bytes"]
    for p in alone, two:
        left = int(p["memory_total_bytes"] * 0.25) - p["comm_bytes"] - p["total_bytes"]
        assert 0 <= left < p["block_bytes"], p
