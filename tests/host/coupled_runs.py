"""Guiders over small models with what they sample: together, and each alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from host import core_models as core


@dataclass
class Case:
    """Guiders with the noise and the latents of their streams."""

    names: tuple[str, ...]
    guiders: list
    noise: list[torch.Tensor]
    latents: list[torch.Tensor]

    @classmethod
    def of(cls, *names: str, batch: int = 1, empty: bool = True, **options: Any) -> Case:
        noise = [core.latent(name, 10 + i, batch) for i, name in enumerate(names)]
        latents = [torch.zeros_like(z) if empty else core.latent(name, 20 + i, batch) for i, (name, z) in
                   enumerate(zip(names, noise))]  # fmt: skip
        return cls(names, [core.guider(name, seed=i, **options) for i, name in enumerate(names)], noise, latents)


def nested(tensors):
    from comfy.nested_tensor import NestedTensor

    return NestedTensor(list(tensors))


def sampler(name="euler"):
    import comfy.samplers

    return comfy.samplers.sampler_object(name)


def together(guider, case, sigmas, name="euler", mask=None, **options):
    """The streams of a coupled run."""
    with torch.inference_mode():
        noise, latents = nested(case.noise), nested(case.latents)
        return guider.sample(noise, latents, sampler(name), sigmas, denoise_mask=mask, seed=7, **options).unbind()


def alone(case, i, sigmas, name="euler", mask=None):
    """What one guider of a case gives by itself."""
    with torch.inference_mode():
        sigmas = sigmas.clone()  # which uni_pc changes in place
        return case.guiders[i].sample(case.noise[i], case.latents[i], sampler(name), sigmas, denoise_mask=mask, seed=7)


def assert_each_as_alone(couple, case, sigmas, names, lead=0, masks=None):
    guider = couple(case, lead=lead)
    for name in names:
        results = together(guider, case, sigmas, name, masks and nested(masks))
        for i, result in enumerate(results):
            expected = alone(case, i, sigmas, name, masks and masks[i])
            assert expected.isfinite().all() and expected.std() > 0.01, name
            assert torch.equal(result, expected), (name, i, float((result - expected).abs().max()))
