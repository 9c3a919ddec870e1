"""The Engine end to end on tiny models: both modes, reuse, deadlines, cancel, bad requests."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engine import infill, runtime
from engine.config import EngineConfig, InfillConfig, SamplerConfig
from engine.errors import Cancelled, ConfigError, EngineError
from engine.fit import OutOfMemory
from engine.loading import choose_dtype
from engine.model import Transformer
from engine.request import InfillRequest, Mode, StopReason
from engine.runtime import Engine
from engine.threads import Threads
from engine.tokenizer import Tokenizer
from engine.verify import Verify
from tests.engine import tiny

SAMPLER = SamplerConfig(max_steps=4)


def never() -> bool:
    return False


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> Engine:
    directory = tmp_path_factory.mktemp("tiny-llama")
    tiny.llama(directory, seed=4, bos_token_id=2)
    return Engine.load(EngineConfig(model=directory, device="cpu", dtype="float32"))


@pytest.fixture(scope="module")
def gemma(tmp_path_factory) -> Engine:
    directory = tmp_path_factory.mktemp("tiny-gemma")
    tiny.diffusion_gemma(directory, seed=4)
    config = EngineConfig(model=directory, device="cpu", dtype="float32", sampler=SAMPLER)
    return Engine.load(config)


def test_a_hole_is_filled_by_denoising_where_the_model_was_trained_for_it(gemma):
    request = InfillRequest(prefix="a = ", suffix="\nb = 2\n", hole_tokens=6)
    result = gemma.infill(request, cancelled=never)
    assert (result.mode, result.tokens, result.forwards) == (Mode.DIFFUSION, 6, 4)
    assert result.stop is StopReason.STEPS
    assert 0 < result.confidence <= 1
    assert set(result.timings_ms) == {"tokenize", "encode", "decode", "total"}


def test_self_conditioning_by_a_few_tokens_is_a_switch(gemma):
    assert gemma._model.config.canvas.soft_tokens is None
    few = Engine.load(replace(gemma._config, soft_tokens=3))
    assert few._model.config.canvas.soft_tokens == 3
    request = InfillRequest(prefix="a = ", suffix="\nb = 2\n", hole_tokens=6)
    assert few.infill(request, cancelled=never).tokens == 6


@pytest.mark.parametrize("sign", [1, -1])
def test_of_several_lengths_a_causal_reading_says_which_is_best(gemma, monkeypatch, sign):
    request = InfillRequest(prefix="a = ", suffix="\nb = 2\n", max_tokens=8)
    monkeypatch.setattr(Verify, "score", lambda self, reading, length: sign * float(length))
    by_denoising, result = (
        Engine("fresh", config, gemma._model, gemma._tokenizer).infill(request, cancelled=never)
        for config in (replace(gemma._config, infill=InfillConfig(verify=False)), gemma._config)
    )
    texts = [(each.evidence.tokens, each.text) for each in (result, *result.alternatives)]
    assert texts == sorted(texts, key=lambda text: -sign * text[0])
    others = (by_denoising, *by_denoising.alternatives)
    assert {text for _, text in texts} == {each.text for each in others}
    assert result.forwards == by_denoising.forwards + 1


def test_without_a_suffix_the_model_goes_on_canvas_by_canvas(gemma):
    result = gemma.infill(InfillRequest(prefix="a = ", hole_tokens=70), cancelled=never)
    assert result.stop is StopReason.LENGTH or result.tokens < 70
    assert result.forwards > 4


def test_a_causal_model_continues_and_says_so(llama):
    result = llama.infill(InfillRequest(prefix="a = ", max_tokens=5), cancelled=never)
    assert result.mode is Mode.CAUSAL
    assert not llama.describe()["trained_for_diffusion"]


def test_diffusion_is_refused_by_a_model_that_never_learnt_it(llama):
    with pytest.raises(
        EngineError, match="was not trained for mode 'diffusion'; use 'causal' or 'auto'"
    ):
        llama.infill(InfillRequest(prefix="", mode=Mode.DIFFUSION), cancelled=never)


def test_a_diffusion_model_can_be_asked_to_decode_causally(gemma):
    request = InfillRequest(prefix="a = ", max_tokens=3, mode=Mode.CAUSAL)
    assert gemma.infill(request, cancelled=never).mode is Mode.CAUSAL


def test_the_healed_text_is_written_again_but_not_returned(llama):
    drafts = []
    request = InfillRequest(prefix="def f():\n  ret", max_tokens=8)
    result = llama.infill(request, cancelled=never, on_draft=drafts.append)
    again = llama.infill(request, cancelled=never)
    assert result.text == again.text == drafts[-1].text
    # " ret" was taken off the prefix; whatever way it is spelled, it is no part of the answer.
    fixed = InfillRequest(prefix="def f():\n  ret", suffix="", max_tokens=1)
    assert not llama.infill(fixed, cancelled=never).text.startswith(" ret")


def test_typing_on_encodes_only_what_is_new(llama):
    text = "def area(width, height):\n    total = width * height\n"
    first = llama.infill(InfillRequest(prefix=text, max_tokens=2), cancelled=never)
    second = llama.infill(InfillRequest(prefix=text + "    if x", max_tokens=2), cancelled=never)
    assert first.cached_tokens < first.prompt_tokens
    assert second.cached_tokens >= first.prompt_tokens
    back = llama.infill(InfillRequest(prefix=text[:20], max_tokens=2), cancelled=never)
    assert back.cached_tokens >= back.prompt_tokens - 2


def test_preparing_encodes_the_prompt_and_writes_nothing(llama, gemma):
    for engine, prefix in ((llama, "import prepared\n\ndef "), (gemma, "import ready\n\ndef ")):
        request = InfillRequest(prefix=prefix, suffix="\n", max_tokens=4, prepare=True)
        prepared = engine.infill(request, cancelled=never)
        assert (prepared.text, prepared.tokens, prepared.forwards) == ("", 0, 0)
        assert prepared.cached_tokens < prepared.prompt_tokens
        asked = engine.infill(replace(request, prepare=False), cancelled=never)
        assert asked.cached_tokens >= prepared.prompt_tokens - 1
        with pytest.raises(Cancelled):
            other = replace(request, prefix="another = " + prefix)
            engine.infill(other, cancelled=lambda: True)


def test_answers_do_not_depend_on_what_was_asked_before(llama, gemma):
    for engine in (llama, gemma):
        request = InfillRequest(prefix="value = compute(", suffix=")\n", hole_tokens=6)
        first = engine.infill(request, cancelled=never)
        engine.infill(InfillRequest(prefix="value = other(1)\n", max_tokens=6), cancelled=never)
        engine.infill(InfillRequest(prefix="value = comp", max_tokens=6), cancelled=never)
        assert engine.infill(request, cancelled=never).text == first.text


def test_drafts_save_forwards_and_change_no_answer(tmp_path):
    tiny.llama(tmp_path, seed=4, bos_token_id=2)
    tokenizer = Tokenizer.from_directory(tmp_path)
    model = tiny.load_ours(tmp_path)
    texts = [tokenizer.decode([i]) for i in range(tiny.VOCAB)]
    odd = [i for i, text in enumerate(texts) if not (text and text.isascii())]
    model.embed_tokens.weight[odd] = 0  # a logit of 0 is never the highest
    config = EngineConfig(model=tmp_path, device="cpu")
    plain = Engine("plain", replace(config, drafts=False), model, tokenizer)
    drafting = Engine("drafting", config, model, tokenizer)
    saved = 0
    for prefix in ("a = ", "def f():\n  ret", "return ret\n    re", ""):
        text = plain.infill(InfillRequest(prefix=prefix, max_tokens=40), cancelled=never).text
        for suffix in ("", f"\n\n{prefix}{text}"):
            request = InfillRequest(prefix=prefix, suffix=suffix, max_tokens=60)
            expected = plain.infill(request, cancelled=never)
            result = drafting.infill(request, cancelled=never)
            assert (result.text, result.stop) == (expected.text, expected.stop)
            assert result.tokens == expected.tokens
            assert result.confidence == pytest.approx(expected.confidence, abs=1e-5)
            assert expected.forwards >= result.forwards
            saved += expected.forwards - result.forwards
    assert saved > 60


@pytest.mark.parametrize("wanted", [False, True])
def test_the_canvas_shows_what_was_copied_only_where_that_is_asked_for(
    tmp_path, monkeypatch, wanted
):
    tiny.diffusion_gemma(tmp_path, seed=4)
    config = EngineConfig(model=tmp_path, device="cpu", sampler=SAMPLER, canvas_drafts=wanted)
    engine = Engine.load(config)
    guessed = []
    denoise = infill.denoise
    monkeypatch.setattr(
        infill,
        "denoise",
        lambda *args, **how: guessed.append(args[2][0].guess) or denoise(*args, **how),
    )
    suffix = "\nfirst(alpha, beta)\nsecond()\n"
    for prefix in ("first(alpha, b", "zzz"):
        request = InfillRequest(prefix=prefix, suffix=suffix, hole_tokens=8)
        engine.infill(replace(request, single_line=True), cancelled=never)
    copied = Tokenizer.from_directory(tmp_path).encode("beta)")  # the word's beginning is healed
    assert guessed == [tuple(copied) if wanted else (), ()]


@pytest.mark.parametrize(
    ("template", "prompted", "clamped"),
    [
        ("auto", "<channel|>a =", "\nb = 2\n<turn|>"),
        ("raw", "<bos>a =", "\nb = 2\n<eos>"),
        ("hole", "b = 2\n\n\nAnd this is what stands before it:\na = \n\n", ""),
    ],
)
def test_the_template_decides_what_the_model_is_shown(
    tmp_path, monkeypatch, template, prompted, clamped
):
    tiny.diffusion_gemma(tmp_path, seed=4, bos_token_id=2, pad_token_id=0)
    config = EngineConfig(model=tmp_path, device="cpu", sampler=SAMPLER, template=template)
    engine = Engine.load(config)
    shown = []
    denoise = infill.denoise

    def spy(model, cache, canvases, *rest, **how):
        shown.append((spelled(cache.ids), spelled(canvases[0].clamped).partition("<pad>")[0]))
        return denoise(model, cache, canvases, *rest, **how)

    tokenizer = Tokenizer.from_directory(tmp_path)
    names = {tokenizer.special(name): name for name in tiny.SPECIAL}

    def spelled(ids) -> str:
        return "".join(names.get(i) or tokenizer.decode([i]) for i in ids)

    monkeypatch.setattr(infill, "denoise", spy)
    result = engine.infill(
        InfillRequest(prefix="a = ", suffix="\nb = 2\n", hole_tokens=6), cancelled=never
    )
    assert prompted in shown[0][0]
    assert shown[0][1] == clamped
    assert result.mode is Mode.DIFFUSION


def test_a_template_for_chats_is_refused_before_a_plain_models_weights_are_read(llama):
    directory = Path(llama.describe()["directory"])
    with pytest.raises(ConfigError, match="template 'chat' is for models that chat"):
        Engine.load(EngineConfig(model=directory, device="cpu", template="chat"))


def test_another_seed_gives_another_canvas(gemma):
    texts = {
        gemma.infill(
            InfillRequest(prefix="a = ", suffix="\n", hole_tokens=8, seed=seed), cancelled=never
        ).text
        for seed in range(3)
    }
    assert len(texts) > 1


def test_cancelled_work_stops_and_the_next_request_is_answered(llama, gemma):
    for engine in (llama, gemma):
        request = InfillRequest(prefix="a = ", suffix="\n", max_tokens=8)
        expected = engine.infill(request, cancelled=never).text
        with pytest.raises(Cancelled):
            engine.infill(request, cancelled=lambda: True)
        assert engine.infill(request, cancelled=never).text == expected


OUT_OF_MEMORY = {
    "a GPU's": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    "a CPU's": lambda: torch.empty(10**15),
    "Python's": lambda: MemoryError(),
}


def test_the_length_of_a_hole_is_searched_for_unless_it_is_given_or_that_is_switched_off(gemma):
    """DiffusionGemma was trained to continue text only, so its canvases do not end by themselves."""
    request = InfillRequest(prefix="value = compute(", suffix=")\n", max_tokens=6)
    searched = gemma.infill(request, cancelled=never)
    given = gemma.infill(replace(request, hole_tokens=6), cancelled=never)
    assert searched.forwards > SAMPLER.max_steps >= given.forwards
    config = EngineConfig(
        model=Path(gemma.describe()["directory"]),
        device="cpu",
        sampler=SAMPLER,
        infill=InfillConfig(probe=False),
    )
    fixed = Engine.load(config).infill(request, cancelled=never)
    assert fixed.forwards <= SAMPLER.max_steps


@pytest.mark.parametrize("whose", OUT_OF_MEMORY)
@pytest.mark.parametrize("after", [1, 3])
def test_out_of_memory_is_told_and_the_next_request_is_answered(
    llama, gemma, monkeypatch, whose, after
):
    for engine in (llama, gemma):
        request = InfillRequest(prefix="some = ", suffix="\n", hole_tokens=8)
        expected = engine.infill(request, cancelled=never).text
        forwards = []
        layers = Transformer._layers

        def exhausted(self, *args, forwards=forwards, layers=layers):
            forwards.append(1)
            if len(forwards) == after:
                raise OUT_OF_MEMORY[whose]()
            return layers(self, *args)

        with monkeypatch.context() as patched:
            patched.setattr(Transformer, "_layers", exhausted)
            with pytest.raises(OutOfMemory, match=r"memory ran out on cpu while filling a hole"):
                engine.infill(request, cancelled=never)
        assert len(forwards) == after
        assert engine.describe()["cached_prefixes"] == 0
        again = engine.infill(request, cancelled=never)
        assert (again.text, again.cached_tokens) == (expected, 0)


def test_another_error_of_a_forward_is_not_taken_for_lack_of_memory(gemma, monkeypatch):
    def broken(self, *args):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(Transformer, "_layers", broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        gemma.infill(InfillRequest(prefix="a = "), cancelled=never)


def test_out_of_memory_while_loading_says_what_to_do(llama, monkeypatch):
    def exhausted(*args, **how):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(runtime, "load_model", exhausted)
    with pytest.raises(OutOfMemory, match=r"while loading the model; .* --quantize int4"):
        Engine.load(EngineConfig(model=Path(llama.describe()["directory"]), device="cpu"))


@pytest.mark.parametrize("chunks", [0, 1, 3])
def test_a_prompt_is_encoded_in_chunks_and_cancelled_between_them(gemma, monkeypatch, chunks):
    engine = Engine(
        "chunked",
        replace(gemma._config, prefill_chunk=16),
        gemma._model,
        gemma._tokenizer,
    )
    lengths = []
    encode = Transformer.encode

    def spy(self, ids, cache, **how):
        lengths.append(len(ids))
        return encode(self, ids, cache, **how)

    monkeypatch.setattr(Transformer, "encode", spy)
    request = InfillRequest(prefix="value = 1\n" * 10, suffix="\n", hole_tokens=4)
    with pytest.raises(Cancelled):
        engine.infill(request, cancelled=lambda: len(lengths) >= chunks)
    assert lengths == [16] * chunks
    result = engine.infill(request, cancelled=never)
    assert result.cached_tokens == 16 * chunks, "what was encoded is not lost"
    assert max(lengths) == 16
    assert sum(lengths) == result.prompt_tokens


def test_the_deadline_gives_the_best_so_far(llama, gemma):
    for engine in (llama, gemma):
        request = InfillRequest(prefix="a = ", suffix="\n", max_tokens=30, deadline_ms=0.001)
        result = engine.infill(request, cancelled=never)
        assert result.stop is StopReason.DEADLINE
        assert result.forwards == 1


def test_a_hole_larger_than_the_canvas_is_refused_with_what_would_fit(gemma):
    request = InfillRequest(prefix="a", suffix="bcd", hole_tokens=30)
    with pytest.raises(EngineError, match=r"hole of 30 tokens and 3 of suffix .* at most 29"):
        gemma.infill(request, cancelled=never)


def test_one_line_is_one_line(llama, gemma):
    for engine in (llama, gemma):
        request = InfillRequest(prefix="a = ", suffix="\n", single_line=True, max_tokens=24)
        for seed in range(4):
            text = engine.infill(
                InfillRequest(**{**request.to_json(), "seed": seed, "context": ()}),
                cancelled=never,
            ).text
            assert "\n" not in text


def test_empty_and_hostile_requests_are_answered(llama, gemma):
    for engine in (llama, gemma):
        for prefix in ("", "\n", "\x00\ud800", "<|turn>" * 40, "x" * 9000):
            engine.infill(
                InfillRequest(prefix=prefix, suffix="<eos>", max_tokens=2), cancelled=never
            )


@pytest.mark.parametrize(
    ("capabilities", "plain", "experts"),
    [
        ({"avx512_vnni": True, "avx512_bf16": True}, torch.int8, torch.bfloat16),
        ({"avx_vnni": True}, torch.int8, torch.float32),
        ({"amx_int8": True, "amx_bf16": True}, torch.int8, torch.bfloat16),
        ({"avx512_bf16": True}, torch.bfloat16, torch.bfloat16),
        ({"avx512_bf16": False}, torch.float32, torch.float32),
    ],
)
def test_auto_takes_what_the_cpu_computes_in(
    monkeypatch, llama, gemma, capabilities, plain, experts
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    cpu = torch.device("cpu")
    assert choose_dtype("auto", cpu, llama._model.config) is plain
    assert choose_dtype("auto", cpu, gemma._model.config) is experts
    assert choose_dtype("auto", torch.device("cuda"), llama._model.config) is torch.bfloat16
    for name in ("float32", "bfloat16", "float16", "int8"):
        assert choose_dtype(name, cpu, llama._model.config) is getattr(torch, name)


def test_int8_is_refused_where_it_cannot_be(llama, gemma):
    with pytest.raises(ConfigError, match="'int8' is for the CPU; on cuda use 'bfloat16'"):
        choose_dtype("int8", torch.device("cuda"), llama._model.config)
    with pytest.raises(ConfigError, match="'int8' is not supported for diffusion_gemma"):
        choose_dtype("int8", torch.device("cpu"), gemma._model.config)


@pytest.mark.parametrize(("asked", "expected"), [(0, 3), (1, 1)])
def test_each_request_takes_the_cores_that_are_free(tmp_path, monkeypatch, asked, expected):
    tiny.llama(tmp_path, seed=4, bos_token_id=2)
    before = torch.get_num_threads()
    engine = Engine.load(EngineConfig(model=tmp_path, device="cpu", threads=asked))
    monkeypatch.setattr(Threads, "choose", lambda self: 3)
    try:
        engine.infill(InfillRequest(prefix="a = ", max_tokens=2), cancelled=never)
        assert engine.describe()["threads"] == expected
    finally:
        torch.set_num_threads(before)


def test_loading_needs_no_compiler(llama):
    directory = llama.describe()["directory"]
    code = (
        "import sys; from pathlib import Path; from engine.config import EngineConfig; "
        "from engine.runtime import Engine; "
        f"Engine.load(EngineConfig(model=Path({directory!r}), device='cpu')); "
        "assert 'torch._dynamo' not in sys.modules, '80 MB and a second for nothing'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_cuda_is_refused_where_there_is_none(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device; the refusal is tested on one without")
    with pytest.raises(ConfigError, match="device 'cuda' is not available here"):
        Engine.load(EngineConfig(model=tmp_path, device="cuda"))
