"""Whole runs of the original, from texts and images to pixels and texts (SPEC_VD section 5)."""

import numpy as np
import pytest
import torch
from PIL import Image
from sample_options import sample
from versatile_golden import by_rule, read

from codi_backend.conditioning.context import concatenate, mix
from codi_backend.config import CoDiConfig


@pytest.fixture(scope="module")
def codi():
    """The small model that made the cases."""
    return by_rule(CoDiConfig.from_reference(read("e2e_t2i")[0]))


def squeezed(case, name="image"):
    """An image as the original resizes it: squeezed."""
    squeezed = Image.fromarray(case[f"in/{name}"].numpy()).resize((64, 64), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(squeezed)).permute(2, 0, 1)[None] / 255


def text_to_image(codi, meta, case):
    return codi.context("text", meta["texts"])


def image_alone(codi, meta, case):
    return codi.context("image", squeezed(case))


def dual(codi, meta, case):
    return mix([(codi.context("text", meta["texts"]), 0.7), (codi.context("image", squeezed(case)), 0.3)])


def without_text(codi, meta, case):
    return codi.context("image", squeezed(case), focus=0.8)


def several(codi, meta, case):
    first, second = squeezed(case, "image_0"), squeezed(case, "image_1")
    return concatenate(
        [
            codi.context("image", first),
            codi.context("image", second, weight=0.86, focus=1.0),
            codi.context("image", first.flip(3), weight=0.5, focus=0.0),
        ]
    )


RUNS = {
    "t2i": text_to_image,
    "i2i_plain": image_alone,
    "i2t": image_alone,
    "dual_text07_focus05": dual,
    "dual_no_text": without_text,
    "multi_four": several,
}


@pytest.mark.parametrize("name", RUNS)
def test_runs(codi, name):
    meta, case = read(f"e2e_{name}")
    output = "text" if name == "i2t" else "image"
    mixed = RUNS[name](codi, meta, case)
    for i, context in enumerate(getattr(mixed, "contexts", [mixed])):
        key = f"{i}_{context.kind}"
        torch.testing.assert_close(context.tokens, case[f"cond/{key}"], atol=1e-5, rtol=0)
        without = case.get(f"uncond/{key}", torch.zeros_like(context.tokens))
        torch.testing.assert_close(context.without(output), without, atol=1e-5, rtol=0)
    settings = {"steps": meta["config"]["ddim_steps"], "guidance": 7.5, "sampler": "ddim_released"}
    latents = sample(codi.diffuser, {output: case["noise"]}, mixed.expand(2), **settings)[output]
    assert (latents - case["z"]).abs().max() < 1e-3 * case["z"].abs().max()
    if output == "image":
        decoded = codi.decode("image", latents / codi.config.image_autoencoder.scale_factor)
        pixels = (decoded * 255).to(torch.uint8).permute(0, 2, 3, 1)
        assert (pixels.int() - case["out/image_uint8"].int()).abs().max() <= 2
