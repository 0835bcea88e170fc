"""Networks of the published depth and of the published size against the original code's outputs (SPEC section 9)."""

import json

import pytest
import torch
from detweights import fill_
from safetensors.torch import load_file

from codi_backend import published
from codi_backend.diffuser import Diffuser
from codi_backend.diffuser.names import to_reference
from codi_backend.reference_config import diffuser_from_reference

pytestmark = pytest.mark.slow

DEEP = ["image", "image_mixed_cond", "text", "audio", "joint_image_text", "joint_image_audio", "joint_video_audio"]
FULL = {"image_256": "image", "text": "text", "audio": "audio"}


def by_rule(config, prefix):
    """Make a diffuser with the rule's weights, which are the only ones it ever has: full-size ones barely fit twice."""
    with torch.device("meta"):
        diffuser = Diffuser(config)
    diffuser.to_empty(device="cpu")
    for name, network in diffuser.networks.items():
        fill_(network, f"{prefix}unet_{name}.", to_reference)
    return diffuser


# Before the deep cases, whose model stays until the last of them.
@pytest.mark.parametrize("name", FULL)
def test_full_size(name, golden):
    stream = FULL[name]
    case = load_file(golden / f"unet_full_{name}.safetensors")
    diffuser = by_rule(published.CONFIG.diffuser.only({stream}), "model.diffusion_model.")
    with torch.inference_mode():
        out = diffuser({stream: case[f"in/x_{stream}"]}, case["in/timesteps"], case["in/cond_text"])
    torch.testing.assert_close(out[stream], case[f"out/{stream}"], atol=2e-4, rtol=0)


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
