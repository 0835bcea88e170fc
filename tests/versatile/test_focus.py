"""Focus against the original's results, and what it must do beyond them."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from codi_backend.conditioning.focus import RANK, STYLE_RANK, decompose, focus, focus_local

GOLDEN = load_file(Path(__file__).parents[1] / "golden/versatile/focus.safetensors")
SMALL = GOLDEN["in/small"]


@pytest.mark.parametrize("name", sorted(name for name in GOLDEN if name.startswith("out/")))
def test_golden(name):
    _, case, level = name.split("/")
    every = 16 if case == "clip" else 1
    edited = focus(GOLDEN[f"in/{case}"], float(level))[:, ::every]
    torch.testing.assert_close(edited, GOLDEN[name], atol=1e-4, rtol=0)


@pytest.mark.parametrize("level", [0.0, 0.3, 0.7, 1.0])
def test_every_sample_of_a_batch_is_edited_by_itself(level):
    # As many samples as channels, and as many as tokens, is where the original's last step went wrong unnoticed.
    batch = torch.cat([SMALL[:, :64], 3 * SMALL[:, 32:] + 1, torch.randn(62, 64, 64, generator=torch.manual_seed(0))])
    alone = torch.cat([focus(sample[None], level) for sample in batch])
    torch.testing.assert_close(focus(batch, level), alone, atol=1e-4, rtol=0)
    torch.testing.assert_close(focus(batch, level).std((1, 2)), batch.std((1, 2)))


def test_the_middle_changes_nothing_and_the_ends_are_semantic_and_style():
    assert focus(SMALL, 0.5) is SMALL and torch.equal(focus_local(SMALL[:, :5], 0.5), SMALL[:, :5])
    before = decompose(SMALL, RANK)[3]
    semantic, style = (decompose(focus(SMALL, level), RANK)[3] for level in (0.0, 1.0))
    # All that is left is scaled alike, to keep the spread.
    torch.testing.assert_close(semantic[0, :10] / semantic[0, 0], before[0, 2:12] / before[0, 2], atol=1e-4, rtol=0)
    torch.testing.assert_close(
        style[0, :STYLE_RANK] / style[0, 0], before[0, :STYLE_RANK] / before[0, 0], atol=1e-4, rtol=0
    )
    assert (style[0, STYLE_RANK:] < 1e-4 * style[0, 0]).all()


@pytest.mark.parametrize("level", [0.0, 0.49, 0.51, 1.0])
def test_a_fully_masked_image_stays_zero_beside_others(level):
    batch = torch.cat([torch.zeros_like(SMALL), SMALL])
    edited = focus(batch, level)
    assert not edited[0].any()
    torch.testing.assert_close(edited[1:], focus(SMALL, level), atol=1e-5, rtol=0)


def test_masked_tokens_stay_zero():
    partly = SMALL.clone()
    partly[:, ::3] = 0
    edited = focus(partly, 0.8)
    assert edited[:, ::3].abs().max() < 1e-5 and edited[:, 1::3].abs().max() > 0.1


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_tokens_with_nothing_but_what_is_removed(level):
    one = torch.linspace(-1, 1, 30)[:, None] * torch.linspace(-1, 1, 40)
    edited = focus(one[None], level)
    assert edited.abs().max() < 1e-5 if level == 0 else torch.allclose(edited[0], one, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_precision_is_kept(dtype):
    edited = focus(SMALL.to(dtype), 0.2)
    assert edited.dtype == dtype
    atol = {torch.float16: 2e-3, torch.bfloat16: 2e-2, torch.float64: 1e-5}[dtype]
    torch.testing.assert_close(edited.float(), GOLDEN["out/small/0.2"], atol=atol, rtol=0)


def test_the_first_token_is_left_alone():
    tokens = torch.cat([torch.full((1, 1, 64), 7.0), SMALL], 1)
    edited = focus_local(tokens, 0.3)
    assert torch.equal(edited[:, 0], tokens[:, 0])
    torch.testing.assert_close(edited[:, 1:], GOLDEN["out/small/0.3"], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("tokens", "level", "message"),
    [
        (SMALL, 1.1, "focus: 1.1 is out of range; choose a number from 0 to 1"),
        (SMALL, float("nan"), "focus: nan is out of range"),
        (SMALL[:, :19], 0.6, r"at least 20 local tokens .* not \[1, 19, 64\]"),
        (SMALL[..., :19], 0.2, "at least 20 local tokens"),
        (SMALL[0], 0.2, r"\[B, N, D\], not \[96, 64\]"),
        (SMALL / 0, 0.2, "not finite"),
    ],
)
def test_what_is_not_possible_is_reported(tokens, level, message):
    with pytest.raises(ValueError, match=message):
        focus(tokens, level)
