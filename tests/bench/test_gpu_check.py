"""`make gpu-check` to its end, in small and on a CPU; and what it makes its model of."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench import full_size, step, step_figures
from engine.cache import PrefixCache
from engine.graphs import Graphs
from engine.weights import Fp8Weight, Int4Weight

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


@pytest.mark.timeout(900)
def test_it_runs_to_its_end_and_the_last_line_is_its_figures(tmp_path):
    command = [ROOT / "scripts" / "gpu-check.sh", sys.executable, "--tiny", "--device", "cpu"]
    ended = subprocess.run(
        [*command, "--precisions", "bf16,int4-bf16-head"],
        capture_output=True,
        text=True,
        timeout=390,
        env={**os.environ, "OUT": str(tmp_path)},
    )
    lines = ended.stdout.splitlines()
    assert lines[-1] == (tmp_path / "step.json").read_text(encoding="utf-8").strip()
    interpreted = (tmp_path / "kernels.log").read_text(encoding="utf-8")
    assert interpreted.count("µs") == 1 and '"kernels": [{' in interpreted.splitlines()[-1]
    assert "exit code 0" in lines, "no stage failed, was cut off or not begun"
    figures = json.loads(lines[-1])
    assert figures["tiny"] and figures["agreed"]
    assert list(figures["precisions"]) == ["bf16", "int4-bf16-head"]
    for one in figures["precisions"].values():
        assert min(one["parity"]["first_steps"]) >= 0.9
        assert one["parity"]["first_step_log_probability_off"] <= step.MOST_OFF
        assert len(one["parity"]["agreement"]) == step_figures.STEPS
        assert [row["rows"] for row in one["step_ms"]] == [16]
        assert all(row["floor"] > 0 for row in one["step_ms"])
        assert 2 <= one["experts"]["first step"] <= 4
        assert one["causal_token_ms"] > 0 and one["long_prefix"]["warm_ms"] > 0
    plain = figures["precisions"]["bf16"]
    assert plain["parity"]["agreement"] == [1.0] * step_figures.STEPS, (
        "fp32 here: nothing is rounded"
    )
    assert plain["transformers_ms"] > 0
    assert "### int4-bf16-head, prefix 40" in lines
    assert sum(line.startswith("| rows |") for line in lines) == 2


@pytest.mark.parametrize(
    "changed",
    [lambda seen: {"best": seen.best + 1}, lambda seen: {"log_best": seen.log_best + 0.2}],
    ids=["other ids", "other probabilities"],
)
def test_paths_that_disagree_are_a_failure(monkeypatch, capsys, changed):
    steps = Graphs.__call__

    def wrong(self, *args):
        for report in steps(self, *args):
            seen = report[0]
            yield {0: replace(seen, **changed(seen))}

    monkeypatch.setattr(Graphs, "__call__", wrong)
    code = step.main(["--tiny", "--device", "cpu", "--precisions", "bf16", "--no-reference"])
    assert code == 1
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["agreed"] is False


def test_a_precision_that_fails_leaves_the_others_their_figures(monkeypatch, capsys, tmp_path):
    def fail(self):
        raise ValueError("no grouped products here")

    monkeypatch.setattr(step_figures.Bench, "reference_infill", fail)
    out = tmp_path / "step.json"
    options = ["--tiny", "--device", "cpu", "--precisions", "bf16,int4", "--out", str(out)]
    assert step.main(options) == 1
    figures = json.loads(out.read_text(encoding="utf-8"))["precisions"]
    assert figures["bf16"]["error"] == "ValueError: no grouped products here"
    assert figures["bf16"]["long_prefix"] and figures["int4"]["long_prefix"]
    assert "test_gpu_check.py" in capsys.readouterr().err


def test_steps_that_write_no_logits_are_checked_too(capsys):
    options = ["--tiny", "--device", "cpu", "--precisions", "bf16", "--no-reference"]
    assert step.main([*options, "--soft-tokens", "4"]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["soft_tokens"] == 4
    assert figures["precisions"]["bf16"]["parity"]["agreement"] == [1.0] * step_figures.STEPS


def test_without_a_gpu_it_says_what_it_needs():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    command = [ROOT / "scripts" / "gpu-check.sh", sys.executable]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert "gpu-check needs a CUDA device" in ended.stderr


def test_the_reference_lies_over_our_tensors_and_computes_the_same():
    size = step_figures.tiny()
    ours = full_size.random_model(size.config, "bf16", dtype=torch.float32, device=CPU)
    theirs = full_size.reference(ours, size.description)
    table = theirs.get_input_embeddings().weight
    assert table.data_ptr() == ours.embed_tokens.weight.data_ptr()
    ids = torch.randint(5, 512, (1, 40), generator=torch.Generator().manual_seed(1))
    canvas = torch.randint(5, 512, (1, 256), generator=torch.Generator().manual_seed(2))
    cache = PrefixCache(size.config, CPU, torch.float32)
    with torch.inference_mode():
        prefix = theirs.model.encoder(input_ids=ids, use_cache=True).past_key_values
        expected = theirs(past_key_values=prefix, decoder_input_ids=canvas).logits
        ours.encode(ids[0].tolist(), cache)
        logits = ours.logits(ours.canvas(canvas, cache, None))
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("precision", "experts", "linears"),
    [("fp8", Fp8Weight, Fp8Weight), ("int4", Int4Weight, Fp8Weight)],
)
def test_weights_are_rounded_as_they_are_drawn(precision, experts, linears):
    config = step_figures.tiny().config

    def made(precision, **how):
        return full_size.random_model(config, precision, dtype=torch.float32, device=CPU, **how)

    plain, rounded = made("bf16"), made(precision)
    weights = dict(rounded.weights())
    assert isinstance(weights["layers.0.experts.down_proj"], experts)
    joined = weights["layers.5.self_attn.qkv_proj.weight"]
    assert isinstance(joined, linears)
    attention = plain.layers[5].self_attn
    exact = torch.cat((attention.q_proj.weight, attention.k_proj.weight))
    assert (joined.dequantize(torch.float32) - exact).norm() < 0.04 * exact.norm()
    assert "lm_head.weight" in weights
    assert "lm_head.weight" not in dict(made(precision, head_copy=False).weights())
