"""The memory planner against sums made by hand, and against what models and caches really take."""

import json

import pytest
import torch

from engine import formats, plan, probe, released, storage
from engine.cache import PrefixCache
from engine.config import ModelConfig
from engine.model import Transformer
from engine.plan import PRECISIONS, DoesNotFit
from engine.weights import to_fp8, to_int4
from tests.engine import tiny

CONFIG = released.config()
BF16, FP8, INT4, LEAST = PRECISIONS


NAMES = {
    formats.class_of(name): name
    for name in (
        "layers.0.self_attn.q_proj.weight",
        "layers.0.mlp.up_proj.weight",
        "layers.0.experts.down_proj",
        "self_conditioning.up_proj.weight",
        "embed_tokens.weight",
        "layers.0.router.proj.weight",
        "lm_head.weight",
        "norm.weight",
    )
}


def numel(config: ModelConfig) -> int:
    with torch.device("meta"):
        model = Transformer(config)
    return sum(p.numel() for p in {id(p): p for p in model.parameters()}.values())


def test_the_weights_counted_are_those_the_model_has(tmp_path):
    gemma, llama = (
        make(tmp_path / name, seed=1).config
        for name, make in (("gemma", tiny.diffusion_gemma), ("llama", tiny.llama))
    )
    for config in (CONFIG, gemma, llama):
        assert plan.parameters(config).total == numel(config)


def test_weights_take_the_bits_of_their_form():
    # 128 experts in 30 layers, each 3 matrices of 2816 x 704 with 2 x 704 + 2816 outputs.
    values, outputs = 30 * 128 * 3 * 2816 * 704, 30 * 128 * 4224
    assert (values, outputs) == (22_837_985_280, 16_220_160)
    others = 25_250_986_812 - values
    linears, linear_outputs = 1_663_287_296, 553_600
    assert plan.parameters(CONFIG).nbytes(BF16) == 2 * 25_250_986_812
    experts = values * 17 // 32 + 4 * outputs  # 4 bits and a 32nd of 8, one factor an output
    fp8 = linears + 4 * linear_outputs
    least = experts + fp8 + 2 * (others - linears)
    assert plan.parameters(CONFIG).nbytes(LEAST) == least
    assert plan.parameters(CONFIG).nbytes(INT4) == least + 262_144 * (2816 + 4), "a head in FP8"


def test_the_forms_are_those_of_the_formats(tmp_path):
    """Every class in every precision takes the bytes that rounded weights really have."""
    matrix = torch.randn(96, 128)
    forms = {"plain": plan.BF16, "fp8": plan.FP8, "int4": plan.INT4}
    real = {
        "plain": matrix.bfloat16().nbytes,
        "fp8": to_fp8(matrix).nbytes,
        "int4": to_int4(matrix).nbytes,
    }
    for kept, form in forms.items():
        assert plan.Weights(matrix.numel(), outputs=96).nbytes(form) == real[kept]
    for precision in PRECISIONS:
        made = {c.name: formats.target(name, precision.name) for c, name in NAMES.items()}
        assert forms[made["experts"]] == precision.experts
        assert {forms[made[n]] for n in ("attention", "dense MLP", "self-conditioning")} == {
            precision.linears
        }
        assert made["router"] == made["embedding"] == made["norms and others"] == "plain"
        if precision.head:
            assert forms[made["head"]] == precision.head


@pytest.mark.parametrize(
    ("context", "sliding", "full"),
    [
        # A prefix and the rows behind it, in pages of 64.
        (256, 512, 512),  # 256 + 256 canvas rows
        (1024, 1536, 1536),  # 1024 + 512 rows of a chunk
        (8192, 1856, 8704),  # window 1024 - 1 + 256 + 63 + 512 = 1854
    ],
)
def test_keys_and_values_by_hand(context, sliding, full):
    expected = 25 * sliding * 8192 + 5 * full * 4096
    assert plan.cache_bytes(CONFIG, context) == expected


def test_the_pages_of_one_prefix_take_what_was_planned(tmp_path):
    model = tiny.diffusion_gemma(tmp_path, seed=1).ours.to(torch.bfloat16)
    rows = plan.most_rows(model.config, 900, 100)
    pools = storage.allocate(model.config, 900, rows, torch.device("cpu"), torch.bfloat16)
    taken = sum(pool.count * pool.page_bytes for pool in pools.values())
    assert taken == plan.cache_bytes(model.config, 900, chunk=100)
    cache = PrefixCache(model.config, torch.device("cpu"), torch.bfloat16, pools=pools)
    for _ in range(9):
        with torch.inference_mode():
            model.encode([5] * 100, cache)


def test_8k_tokens_in_4_bits_stay_below_18_gb():
    chosen = plan.plan(CONFIG, LEAST, 8192)
    assert chosen.weights == 15_362_490_488
    assert chosen.cache == 25 * 1856 * 8192 + 5 * 8704 * 4096
    # 256 rows of 262,144 probabilities in fp32, beside them in bf16 or 64 of them twice in fp32;
    # states of 256 rows, 8 times 2816 and for each of 8 experts 4 · 2816 + 2 · 704, in bf16.
    states = 2 * 256 * (8 * 2816 + 8 * (4 * 2816 + 2 * 704))
    canvas = (4 * 256 + 2 * 256) * 262_144 + states
    assert 2 * 4 * 64 <= 2 * 256
    # Scores of some rows and their softmax, states of 512 rows, a layer's keys and values gathered.
    prefill = 8 * 16 * 120 * 8704 + 14 * 512 * 8704 + 2 * states + 8192 * 8704
    assert chosen.work == max(canvas, prefill) == canvas
    assert chosen.captured == canvas, (
        "captured steps have that once more, and no copy of the prefix"
    )
    parts = (chosen.weights, chosen.cache, chosen.captured, chosen.work)
    assert chosen.total == sum(parts) + plan.RUNTIME_BYTES < 17.5e9
    with_head = plan.plan(CONFIG, INT4, 8192)
    assert with_head.total - chosen.total == 262_144 * (2816 + 4), "18.2 GB"


@pytest.mark.parametrize(
    ("gigabytes", "precision", "least_context"),
    [(18, LEAST, 8192), (24, INT4, 65_536), (32, FP8, 32_768), (48, FP8, 131_072)],
)
def test_the_exactest_form_with_the_context_wanted_is_chosen(gigabytes, precision, least_context):
    chosen = plan.choose(CONFIG, int(gigabytes * 1e9))
    assert chosen.precision is precision
    assert chosen.context >= least_context
    assert chosen.total <= gigabytes * 1e9
    beyond = plan.plan(CONFIG, precision, chosen.context + 256)
    longest = chosen.context == 262_144 - 256
    assert longest or beyond.total > gigabytes * 1e9, "the context is the longest that fits"


def test_with_room_to_spare_it_is_bf16_and_the_whole_context():
    chosen = plan.choose(CONFIG, int(80e9))
    assert (chosen.precision, chosen.context) == (BF16, 262_144 - 256)


def test_with_little_room_the_longest_context_counts():
    free = plan.plan(CONFIG, LEAST, 2048).total
    chosen = plan.choose(CONFIG, free)
    assert (chosen.precision, chosen.context) == (LEAST, 2048)


def test_what_does_not_fit_says_what_would():
    least = plan.plan(CONFIG, LEAST, 512)
    with pytest.raises(DoesNotFit) as raised:
        plan.choose(CONFIG, int(12e9))
    said = str(raised.value)
    assert (
        f"int4 with a bf16 head, the smallest form, takes {least.weights / 1e9:.1f} GB of weights"
        in said
    )
    assert f"{(least.total - 12e9) / 1e9:.1f} GB more than the 12.0 GB that are free" in said
    advised = float(said.rpartition("; ")[2].split()[0])
    assert plan.choose(CONFIG, int(advised * 1e9)).precision is LEAST, "the advice holds"


def test_the_least_is_the_smallest_precision_with_little_context():
    assert plan.least(CONFIG) == plan.plan(CONFIG, LEAST, 512)
    assert plan.least(CONFIG, weights=1000).weights == 1000


def test_doctor_asks_of_a_gpu_what_the_smallest_precision_needs(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text(json.dumps(released.CONFIG))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert probe._size(tmp_path, CONFIG) == (25_250_986_812, plan.least(CONFIG).total)
    packed = {**released.CONFIG, "quantization_config": {"quant_method": "compressed-tensors"}}
    (tmp_path / "config.json").write_text(json.dumps(packed))
    (tmp_path / "model.safetensors").write_bytes(b"x" * 1000)
    assert probe._size(tmp_path, CONFIG)[1] == plan.least(CONFIG, weights=1000).total


def test_the_table_has_a_line_for_each_card():
    lines = dict(plan.table(CONFIG))
    assert list(lines) == [12, 16, 18, 24, 32, 48, 80]
    assert lines[12].startswith("does not fit: ")
    assert lines[18].startswith("int4 with a bf16 head, ")
    assert lines[80].startswith("bf16, 261,888 tokens of context: 6")
