"""What PyTorch and transformers reach on this device. Started by bench_gpu.py in a process of its own, so
that its memory is free again: bench_torch.py matmul|attention|transformers tiny|full SHAPES SECONDS.
Prints JSON lines; {"missing": why} where something is not there. "tiny" runs on the CPU where there is
no GPU."""
import json
import pathlib
import sys
import time

import harness

what, size, shapes, seconds = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3]), float(sys.argv[4])
TINY, END = size == "tiny", time.perf_counter() + seconds


def say(**line):
    print(json.dumps(line), flush=True)


def missing(why):
    say(missing=why)
    sys.exit(0)


try:
    import torch
except ImportError as e:
    missing(f"this Python has no torch ({e})")
if not torch.cuda.is_available() and not TINY:
    missing("this torch sees no GPU")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def sync():
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def best_seconds(function, rounds=5, repeat=1 if TINY else 5):
    """Of one call; the first, which chooses kernels, does not count."""
    function()
    best = float("inf")
    for _ in range(rounds):
        sync()
        begin = time.perf_counter()
        for _ in range(repeat):
            function()
        sync()
        best = min(best, (time.perf_counter() - begin) / repeat)
        if time.perf_counter() > END:
            break
    return best


def attempt(name, function, *args):
    """What has no room is named, and does not end the rest."""
    if time.perf_counter() > END:
        say(name=name, value=0, text="CUT: over its time")
        return
    try:
        function(name, *args)
    except RuntimeError as e:  # torch's out-of-memory error is one
        say(name=name, value=0, text=f"not measured: {str(e).splitlines()[0][:200]}")
    if DEVICE == "cuda":
        torch.cuda.empty_cache()


def matmul():
    best = 0
    for n in (64,) if TINY else (4096, 8192, 16384):
        a = torch.randn(n, n, device=DEVICE, dtype=torch.bfloat16)
        b = torch.randn(n, n, device=DEVICE, dtype=torch.bfloat16)
        best = max(best, 2.0 * n ** 3 / best_seconds(lambda: a @ b))
    say(name="dense bf16", value=best, text=f"{best / 1e12:.3f} TFLOP/s, best of all sizes")


def attention():
    """Prefill, causal, of one sequence; decode of a batch."""
    for head_dim in harness.ATTENTION_HEAD_DIMS:
        for batch, queries, context in (harness.TINY_ATTENTION_SHAPES if TINY else
                                        harness.ATTENTION_SHAPES):
            attempt(f"head_dim {head_dim}, batch {batch}, {queries} queries, context {context}",
                    one_attention, head_dim, batch, queries, context)


def one_attention(name, head_dim, batch, queries, context):
    from torch.nn.functional import scaled_dot_product_attention as sdpa
    from torch.nn.attention import SDPBackend, sdpa_kernel
    heads, kv_heads = harness.ATTENTION_HEADS, harness.ATTENTION_KV_HEADS
    shape = dict(device=DEVICE, dtype=torch.bfloat16)
    q = torch.randn(batch, heads, queries, head_dim, **shape)
    k, v = (torch.randn(batch, kv_heads, context, head_dim, **shape) for _ in range(2))
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION]):
        took = best_seconds(lambda: sdpa(q, k, v, is_causal=queries > 1, enable_gqa=True))
    pairs = queries * (queries + 1) / 2 if queries > 1 else context
    flops, read = 4 * head_dim * heads * batch * pairs, 2 * 2 * batch * kv_heads * context * head_dim
    say(name=name, value=took, text=f"{1e6 * took:.1f} us, {flops / took / 1e12:.2f} TFLOP/s, "
                                    f"{read / took / 1e9:.1f} GB/s of K and V")


def transformers():
    try:
        import transformers as hf
    except ImportError as e:
        missing(f"this Python has no transformers ({e})")
    context = 32 if TINY else 1024
    for name in ("tiny",) if TINY else ("llama-3.2-1b", "llama-3.1-8b"):
        config = hf.AutoConfig.from_pretrained(str(shapes / name))
        torch.set_default_dtype(torch.bfloat16)
        with torch.device(DEVICE), torch.no_grad():
            model = hf.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
        torch.set_default_dtype(torch.float32)
        for tokens in (16,) if TINY else (512, 8192, 32768):
            attempt(f"{name} prefill {tokens}", one_prefill, model, config, tokens)
        for batch in (1, 4) if TINY else (1, 8, 64, 256):
            attempt(f"{name} decode {batch}", one_decode, model, config, batch, context)
        del model


@torch.no_grad()
def one_prefill(name, model, config, tokens):
    ids = torch.randint(3, config.vocab_size, (1, tokens), device=DEVICE)
    took = best_seconds(lambda: model(ids, use_cache=True, logits_to_keep=1), rounds=2, repeat=1)
    say(name=name, value=tokens / took, text=f"{tokens / took:.1f} tok/s")


@torch.no_grad()
def one_decode(name, model, config, batch, context):
    """The cache is filled in parts of sequences, so that the activations of their prompts fit."""
    ids = torch.randint(3, config.vocab_size, (batch, context), device=DEVICE)
    step = max(1, context // max(1, batch // 8))
    cache = None
    for at in range(0, context, step):
        cache = model(ids[:, at:at + step], past_key_values=cache, use_cache=True,
                      logits_to_keep=1).past_key_values
    token, steps = ids[:, :1], 2 if TINY else 16
    model(token, past_key_values=cache, use_cache=True)
    sync()
    begin = time.perf_counter()
    for _ in range(steps):
        token = model(token, past_key_values=cache, use_cache=True).logits[:, -1:].argmax(-1)
    sync()
    rate = batch * steps / (time.perf_counter() - begin)
    say(name=name, value=rate, text=f"{rate:.1f} tok/s")


{"matmul": matmul, "attention": attention, "transformers": transformers}[what]()
