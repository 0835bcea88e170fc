"""Whole runs of the original, from its start noise to pixels, samples and texts."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from detweights import det_array, det_input, is_buffer
from safetensors.torch import load_file
from sample_options import sample

from codi_backend.conditioning.prompt import Prompt
from codi_backend.config import CoDiConfig
from codi_backend.pipeline import CoDi

GOLDEN = Path(__file__).parent / "golden"
TEXT = "a train passing by, heavy raining."


@pytest.fixture(scope="module")
def codi():
    """The small model that made the cases, with weights by the rule of the published names."""
    config = CoDiConfig.from_reference(json.loads((GOLDEN / "small_config.json").read_text()))
    with torch.device("meta"):
        state = CoDi(config).to_reference_state_dict()
    for key, value in state.items():
        rule = torch.empty if is_buffer(key, value) else lambda shape, key=key: torch.from_numpy(det_array(key, shape))
        state[key] = rule(tuple(value.shape))
    return CoDi.from_state_dict(state, config)


def read(name):
    case = load_file(GOLDEN / "end_to_end" / f"{name}.safetensors")
    (condition,) = (value for key, value in case.items() if key.startswith("cond/"))
    without, with_prompt = condition.chunk(2)
    return case, Prompt(with_prompt, without)


def run(codi, case, prompt):
    """The released sampler on the case's noise; scaled latents."""
    noise = {key.removeprefix("xT/"): value for key, value in case.items() if key.startswith("xT/")}
    settings = {"steps": 4, "guidance": 7.5, "sampler": "ddim_released", "alignment": "released", "strength": 1.0}
    latents = sample(codi.diffuser, noise, prompt, **settings)
    for name, latent in latents.items():
        expected = case[f"z/{name}"]
        assert (latent - expected).abs().max() < 1e-3 * expected.abs().max(), name
    return latents


def pixels(decoded):
    """As the original turns pixels into bytes: truncated."""
    return (decoded * 255).to(torch.uint8).movedim(1, -1)


def assert_same_pixels(ours, theirs):
    difference = (ours.int() - theirs.int()).abs()
    assert difference.max() <= 1 and (difference > 0).float().mean() < 0.01


def test_prompts(codi):
    _, prompt = read("image__from__text")
    ours = codi.prompt("text", TEXT)
    torch.testing.assert_close(ours.embedding, prompt.embedding, atol=1e-5, rtol=0)
    torch.testing.assert_close(ours.unconditional, prompt.unconditional, atol=1e-5, rtol=0)


def test_video_prompts(codi):
    _, prompt = read("image__from__video")
    drawn = det_input("e2e_vid", (4, 30, 40, 3), "uniform")
    frames = (drawn * 127.5 + 127.5).astype(np.uint8).repeat(4, 1).repeat(4, 2)
    ours = codi.prompt("video", torch.from_numpy(frames).permute(3, 0, 1, 2)[None] / 255)
    torch.testing.assert_close(ours.embedding, prompt.embedding, atol=1e-5, rtol=0)
    torch.testing.assert_close(ours.unconditional, prompt.unconditional, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["image__from__text", "image__from__video"])
def test_images(codi, name):
    case, prompt = read(name)
    latents = run(codi, case, prompt)
    decoded = codi.decode("image", latents["image"] / 0.18215)
    assert_same_pixels(pixels(decoded), case["out/image_u8"])


def test_text(codi):
    run(codi, *read("text__from__image"))


def test_video_with_audio(codi):
    case, prompt = read("video_audio__from__text")
    latents = run(codi, case, prompt)
    frames = pixels(codi.decode("video", latents["video"] / 0.18215))
    assert_same_pixels(frames, case["out/video_u8"])
    audio = codi.decode("audio", latents["audio"] / 0.9228)
    assert list(audio.shape) == case["out/audio_len"].tolist()
    assert (audio[..., :8192] - case["out/audio_first8192"]).abs().max() < 1e-4
