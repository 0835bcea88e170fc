"""The latent step of image-text-image editing and the disentanglement levels, against the original's results."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from codi_backend.conditioning.editing import LEVELS, edit_text_latent, low_rank
from codi_backend.conditioning.focus import decompose

GOLDEN = load_file(Path(__file__).parents[1] / "golden/versatile/deprecated_edit.safetensors")
TOKENS = GOLDEN["in/tokens"]
LATENTS, NEGATIVE, POSITIVE = (GOLDEN[f"i2t2i/{name}"] for name in ("zt", "z_negative", "z_positive"))


def test_latent_step_golden():
    torch.testing.assert_close(edit_text_latent(LATENTS, NEGATIVE, POSITIVE), GOLDEN["i2t2i/z_new"], atol=1e-5, rtol=0)


def test_latent_step_in_its_parts():
    without = edit_text_latent(LATENTS, NEGATIVE)
    assert (without @ NEGATIVE.T).abs().max() < 1e-4
    torch.testing.assert_close(edit_text_latent(without, NEGATIVE), without)
    torch.testing.assert_close(edit_text_latent(LATENTS, positive=POSITIVE), LATENTS + POSITIVE)
    assert torch.equal(edit_text_latent(LATENTS, torch.zeros(1, 768)), LATENTS)
    each = torch.cat([NEGATIVE, POSITIVE])
    alone = torch.cat([edit_text_latent(a[None], b[None]) for a, b in zip(LATENTS, each)])
    torch.testing.assert_close(edit_text_latent(LATENTS, each), alone)
    assert edit_text_latent(LATENTS.half(), NEGATIVE.half()).dtype == torch.float16


@pytest.mark.parametrize(("level", "tolerance"), [(-1, 5e-3), (-2, 5e-3), (1, 2e-2)])
def test_levels_golden(level, tolerance):
    # The original's random projections are not converged.
    torch.testing.assert_close(low_rank(TOKENS, level), GOLDEN[f"out/level_{level}"], atol=tolerance, rtol=0)


@pytest.mark.parametrize("level", LEVELS)
def test_every_sample_of_a_batch_is_edited_by_itself(level):
    batch = torch.cat([TOKENS, 2 * TOKENS.flip(1), torch.zeros_like(TOKENS)])
    edited = low_rank(batch, level)
    torch.testing.assert_close(edited, torch.cat([low_rank(x[None], level) for x in batch]), atol=1e-5, rtol=0)
    assert not edited[2].any()


def test_levels_keep_their_components():
    before = decompose(TOKENS, 64)[3][0]
    kept = {-2: before[2:50], -1: before[1:50], 1: before[:10], 2: before[:2]}
    for level, wanted in kept.items():
        after = decompose(low_rank(TOKENS, level), 64)[3][0]
        torch.testing.assert_close(after[: len(wanted)], wanted, atol=1e-4, rtol=0)
        assert after[len(wanted) :].max() < 1e-4
    assert low_rank(TOKENS, 0) is TOKENS
    assert low_rank(TOKENS[:, :5].half(), -1).shape == (1, 5, 64)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: edit_text_latent(LATENTS[0], NEGATIVE), r"Text latents are \[B, D\], not \[768\]"),
        (lambda: edit_text_latent(LATENTS, NEGATIVE[:, :64]), r"negative latent of shape \[1, 64\] does not go"),
        (lambda: edit_text_latent(LATENTS, NEGATIVE, POSITIVE.repeat(3, 1)), "positive latent of shape"),
        (lambda: low_rank(TOKENS, 3), "no disentanglement level 3; choose from -2, -1, 0, 1, 2"),
        (lambda: low_rank(TOKENS[0], 1), r"Tokens are \[B, N, D\], not \[96, 64\]"),
        (lambda: low_rank(TOKENS / 0, 1), "not finite"),
    ],
)
def test_what_is_not_possible_is_reported(call, message):
    with pytest.raises(ValueError, match=message):
        call()
