"""The released sampler against the original's own run."""

import json

import pytest
import torch
from safetensors.torch import load_file
from sample_options import sample

from codi_backend.conditioning.prompt import Prompt
from codi_backend.sampling.ddim_released import ReleasedDDIM


def test_timesteps_follow_the_released_rule(golden):
    table = json.loads((golden.parent / "sampling" / "ddim_timesteps.json").read_text())
    for steps, timesteps in table.items():
        if timesteps[-1] < 1000:
            assert ReleasedDDIM(int(steps)).timesteps.tolist() == timesteps[::-1], steps


@pytest.mark.parametrize("steps", [0, 3, 320, 501, 1001])
def test_step_counts_that_crashed_the_original_are_refused(steps):
    with pytest.raises(ValueError, match="steps.* (not possible|out of range)"):
        ReleasedDDIM(steps)


def test_a_guided_joint_run_ends_where_the_original_did(golden, tiny):
    case = load_file(golden.parent / "sampling" / "ddim_tiny_video_audio.safetensors")
    without, with_prompt = case["in/cond_text_uncond_then_cond"].chunk(2)
    out = sample(
        tiny,
        {"video": case["in/xT_video"], "audio": case["in/xT_audio"]},
        Prompt(with_prompt, without),
        steps=5,
        guidance=7.5,
        sampler="ddim_released",
        alignment="released",
        strength=1.0,
    )
    for name, latent in out.items():
        expected = case[f"out/{name}"]
        assert (latent - expected).abs().max() < 1e-3 * expected.abs().max()
        assert torch.isfinite(latent).all()
