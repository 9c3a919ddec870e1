"""The head without logits, and sparse self-conditioning, against plain torch and the sampler."""

import pytest
import torch

from engine import sampler
from engine.kernels import choosing, embedding, head, reference
from engine.kernels.reference import softcap
from engine.weights import to_fp4, to_fp8, to_int4

# canvases, hole, inputs, vocabulary, likeliest
SMALL = [(1, 1, 32, 17, 1), (2, 3, 64, 403, 8), (1, 7, 96, 600, 5), (1, 256, 32, 33, 1)]
RELEASED = [(1, 16, 2816, 262_144, 8), (4, 16, 2816, 262_144, 32), (1, 256, 2816, 262_144, 64)]
FORMS = {"whole": lambda weight: weight, "fp8": to_fp8, "int4": to_int4, "fp4": to_fp4}
CAP = 30.0


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Sums over groups take several rounds."""
    monkeypatch.setattr(choosing, "_BLOCK_GROUPS", 16)


def drawn(shape, form, device):
    """Arguments: logits from flat to peaked, in fp32 on a CPU."""
    canvases, hole, inputs, vocabulary, count = shape
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    hidden = torch.randn(canvases, hole, inputs, device=device)
    hidden *= torch.logspace(-1, 1, hole, device=device)[:, None]
    weight = torch.randn(vocabulary, inputs, device=device, dtype=dtype) * inputs**-0.5
    temperature = torch.full((1,), 0.65, device=device)
    uniform = torch.rand(canvases, hole, device=device)
    return hidden.to(dtype), FORMS[form](weight), CAP, temperature, uniform, None, count


def probabilities(args):
    """[rows, V] in fp64."""
    hidden, weight, cap, temperature, _, bias, _ = args
    logits = softcap(reference.linear(hidden, weight), cap)
    if bias is not None:
        logits[:, 0] += bias
    return (logits.double() / temperature.double()).softmax(-1).flatten(0, 1)


def compare(args, tolerance):
    """Ours equals the plain twin; ids may differ between tokens that are as likely."""
    ours, theirs, exact = head.believe(*args), reference.believe(*args), probabilities(args)
    torch.testing.assert_close(ours.entropy, theirs.entropy, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(ours.log_best, theirs.log_best, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(ours.shares, theirs.shares, rtol=30 * tolerance, atol=tolerance)

    def of(ids):
        return exact.gather(1, ids.reshape(len(exact), -1))

    torch.testing.assert_close(of(ours.best), of(theirs.best), rtol=30 * tolerance, atol=0)
    torch.testing.assert_close(of(ours.likely), of(theirs.likely), rtol=30 * tolerance, atol=1e-9)
    for ids, own in zip(ours.likely.flatten(0, 1), of(ours.likely), strict=True):
        real = ids[own > 0].tolist()
        assert len(set(real)) == len(real), "no token counts twice"
    # The draw falls into its token's stretch of the cumulative sum, up to rounding.
    ids = ours.drawn.reshape(-1, 1)
    value = 1 - args[4].double().reshape(-1, 1)
    upper = exact.cumsum(1).gather(1, ids)
    assert (of(ours.drawn) > 0).all()
    assert (value <= upper + tolerance).all()
    assert (value >= upper - of(ours.drawn) - tolerance).all()
    return ours, theirs


@pytest.mark.parametrize(
    ("shape", "form"),
    [*((shape, "whole") for shape in SMALL), *((SMALL[1], form) for form in FORMS)]
    + [pytest.param(shape, form, marks=pytest.mark.gpu) for shape in RELEASED for form in FORMS],
)
def test_beliefs_equal_plain_torch(shape, form, device):
    tolerance = 2e-2 if form == "fp8" else 2e-5
    if device.type == "cuda":  # a logit of 40 may round to either of two that are 0.25 apart
        tolerance = 2e-2 if form == "whole" else 1e-1
    compare(drawn(shape, form, device), tolerance)


def test_draws_are_the_samplers_to_the_token(device):
    """At uniforms in the middle of a token's stretch, where no rounding decides."""
    shape = (1, 12, 64, 600, 1)
    hidden, weight, cap, temperature, _, bias, count = drawn(shape, "whole", device)
    args = (hidden.float(), weight.float(), cap, temperature, None, bias, count)
    exact = probabilities(args)
    tokens = torch.multinomial(exact, 1)
    middle = exact.cumsum(1).gather(1, tokens) - exact.gather(1, tokens) / 2
    uniform = (1 - middle).float().view(hidden.shape[:2])
    ours = head.believe(*args[:4], uniform, *args[5:])
    logits = softcap(reference.linear(args[0], args[1]), cap)
    belief = sampler.predict(logits, temperature)
    theirs = sampler.draw(belief.probabilities.flatten(0, 1), uniform.flatten())
    assert ours.drawn.flatten().tolist() == theirs.tolist() == tokens.flatten().tolist()


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-24])
def test_the_ends_of_the_unit_interval_draw_tokens_that_can_come(uniform, device):
    args = list(drawn(SMALL[1], "whole", device))
    args[4] = torch.full_like(args[4], uniform)
    compare(args, 2e-5 if device.type == "cpu" else 2e-2)


def test_only_what_a_hole_may_begin_with_is_drawn_in_its_first_position(device):
    args = list(drawn(SMALL[1], "whole", device))
    vocabulary = args[1].shape[0]
    allowed = torch.tensor([3, 200, vocabulary - 1], device=device)
    args[5] = torch.full((vocabulary,), -torch.inf, device=device)
    args[5][allowed] = 0.0
    ours, theirs = compare(args, 2e-5 if device.type == "cpu" else 2e-2)
    assert torch.isin(ours.best[:, 0], allowed).all()
    assert torch.isin(ours.drawn[:, 0], allowed).all()
    assert (ours.shares[:, 0, 3:] == 0).all(), "of eight likeliest tokens three can come"
    assert ((ours.likely >= 0) & (ours.likely < vocabulary)).all()
    assert torch.equal(ours.best, theirs.best)


def test_equal_logits_are_taken_in_the_order_of_ids(device):
    hidden, weight = torch.zeros(1, 2, 32, device=device), torch.ones(403, 32, device=device)
    temperature, uniform = torch.ones(1, device=device), torch.tensor([[0.0, 0.5]], device=device)
    ours = head.believe(hidden, weight, CAP, temperature, uniform, None, 8)
    assert ours.best.tolist() == [[0, 0]]
    assert ours.likely[0, 0].tolist() == list(range(8))
    assert ours.drawn.tolist() == [[402, 201]]
    torch.testing.assert_close(ours.entropy, torch.full((1, 2), 403.0, device=device).log())


def test_no_cap_is_no_cap(device):
    args = list(drawn(SMALL[1], "whole", device))
    args[2] = None
    compare(args, 2e-5 if device.type == "cpu" else 2e-2)


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 8), (1, 5, 37)])
def test_soft_embeddings_equal_plain_torch(shape, device):
    canvases, hole, count = shape
    for dtype in (torch.float32, torch.bfloat16):
        table = torch.randn(403, 96, device=device, dtype=dtype)
        shares, ids = torch.rand(canvases, hole, 403, device=device).topk(count, -1)
        ours = embedding.soft_embedding(table, ids, shares, 53.0)
        theirs = reference.soft_embedding(table, ids, shares, 53.0)
        limit = {torch.float32: 1e-4, torch.bfloat16: 1.0}[dtype]
        assert ours.dtype is dtype
        torch.testing.assert_close(ours, theirs, rtol=2e-2, atol=limit)


def test_arguments_that_do_not_match_are_refused(device):
    hidden, weight, cap, temperature, uniform, _, count = drawn(SMALL[1], "whole", device)
    rest = (cap, temperature, uniform)
    with pytest.raises(AssertionError, match="the likeliest 404 of 403 tokens"):
        head.believe(hidden, weight, *rest, None, 404)
    with pytest.raises(AssertionError, match=r"\(2, 2\) draws for 2 · 3 rows"):
        head.believe(hidden, weight, cap, temperature, uniform[:, :2], None, count)
    with pytest.raises(AssertionError, match="bias of"):
        head.believe(hidden, weight, *rest, torch.zeros(402, device=device), count)
