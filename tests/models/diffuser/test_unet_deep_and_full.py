"""Networks of the published depth and of the published size against the original code's outputs (SPEC section 9)."""

import json

import pytest
import torch
from detweights import fill_
from safetensors.torch import load_file

from codi_backend.checkpoints import codi as published
from codi_backend.checkpoints.diffuser_names import to_reference
from codi_backend.config.reference import diffuser_from_reference
from codi_backend.models.diffuser import Diffuser

pytestmark = pytest.mark.slow

DEEP = ["image", "image_mixed_cond", "text", "audio", "joint_image_text", "joint_image_audio", "joint_video_audio"]
FULL = {"image_256": "image", "text": "text", "audio": "audio"}


def by_rule(config, prefix):
    """Build a diffuser with the rule's weights without initial ones: full-size weights may not fit in memory twice."""
    with torch.device("meta"):
        diffuser = Diffuser(config)
    diffuser.to_empty(device="cpu")
    for name, network in diffuser.networks.items():
        fill_(network, f"{prefix}unet_{name}.", to_reference)
    return diffuser


def run_full_size(stream, case):
    """A separate function, so that the network is freed when a comparison fails and pytest keeps its frame."""
    diffuser = by_rule(published.CONFIG.diffuser.only({stream}), "model.diffusion_model.")
    with torch.inference_mode():
        return diffuser({stream: case[f"in/x_{stream}"]}, case["in/timesteps"], case["in/cond_text"])[stream]


# These run before the deep cases, whose model stays in memory until the last of them.
@pytest.mark.parametrize("name", FULL)
def test_full_size(name, golden):
    stream, case = FULL[name], load_file(golden / f"unet_full_{name}.safetensors")
    torch.testing.assert_close(run_full_size(stream, case), case[f"out/{stream}"], atol=2e-4, rtol=0)


@pytest.fixture(scope="module")
def deep(golden):
    config = json.loads((golden / "unet_deep_image.json").read_text())["config"]
    return by_rule(diffuser_from_reference(config), "codi.")


@pytest.mark.parametrize("name", DEEP)
def test_deep(deep, name, read_case):
    case = read_case(f"unet_deep_{name}")
    with torch.inference_mode():
        out = deep(case.latents, case.timesteps, case.context, alignment="released")
    assert out.keys() == case.out.keys()
    for stream, expected in case.out.items():
        torch.testing.assert_close(out[stream], expected, atol=2e-4, rtol=0)
