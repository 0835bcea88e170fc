"""The networks against the original code's outputs (SPEC section 9)."""

import json

import pytest
import torch
from detweights import fill_
from safetensors.torch import load_file
from torch.nn import functional as F

from codi_backend.checkpoints.diffuser_names import to_reference
from codi_backend.models.diffuser.temporal import SpatioTemporalBlock
from codi_backend.models.layer_factory import LayerFactory

CASES = ["image", "video", "text", "audio", "image_mixed_cond"]
JOINT = ["joint_video_audio", "joint_image_audio", "joint_image_text_audio"]


@pytest.mark.parametrize("name", CASES + JOINT)
def test_outputs(tiny, name, read_case):
    case = read_case(f"unet_tiny_{name}")
    with torch.inference_mode():
        out = tiny(case.latents, case.timesteps, case.context, alignment="released")
    assert out.keys() == case.out.keys()
    for stream, expected in case.out.items():
        torch.testing.assert_close(out[stream], expected, atol=2e-4, rtol=0)


@pytest.mark.parametrize("name", JOINT)
def test_environment_embeddings(tiny, name, read_case):
    case = read_case(f"unet_tiny_{name}")
    with torch.inference_mode():
        out = tiny.environment(case.latents, case.timesteps)
    for stream, value in out.items():
        maps = case.environment["image" if stream == "video" else stream]
        positions = tuple(range(2, maps.ndim))
        torch.testing.assert_close(value[:, 0], F.normalize(maps.mean(positions), dim=-1), atol=1e-5, rtol=0)


def test_channels_last_gives_the_same(variant, read_case):
    """`Module.to(memory_format=...)` does not accept the five-dimensional kernels, hence the loop."""
    case = read_case("unet_tiny_joint_video_audio")
    with torch.inference_mode():
        diffuser = variant()
        for parameter in diffuser.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.to(memory_format=torch.channels_last)
        out = diffuser(case.latents, case.timesteps, case.context, alignment="released")
    for stream, expected in case.out.items():
        torch.testing.assert_close(out[stream], expected, atol=2e-4, rtol=0)


@pytest.mark.parametrize("frames", [1, 4, 8])
def test_spatio_temporal_block(frames, golden):
    width = json.loads((golden / "spatio_temporal_attention.json").read_text())["config"]["dim"]
    tensors = load_file(golden / "spatio_temporal_attention.safetensors")
    # The rule's names have a leading component that `to_reference` needs, since it renames within a network.
    block = fill_(SpatioTemporalBlock(width, LayerFactory()), "", lambda key: "sta" + to_reference(f".{key}"))
    x = tensors[f"in/x_T{frames}"]
    with torch.inference_mode():
        out = block(x.transpose(1, 2).flatten(0, 1), frames).unflatten(0, (-1, frames)).transpose(1, 2)
        bias = block.temporal_rel_pos_bias((12,), x)
    torch.testing.assert_close(out, tensors[f"out/T{frames}"], atol=2e-5, rtol=0)
    torch.testing.assert_close(bias, tensors["mid/rel_pos_bias_T12"], atol=1e-6, rtol=0)
