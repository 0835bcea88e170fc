"""Sampler nodes: the stock KSampler with fewer inputs, and best-of-N."""

from __future__ import annotations

import comfy.sample
import comfy.samplers
import comfy.utils
import latent_preview
from comfy_api.latest import io

import nodes as stock

from ...codi_backend.checks.numbers import require_number, require_whole
from ...codi_backend.modalities import modality
from ...codi_backend.models.noise_schedule import STEPS
from ...codi_backend.sampling.auxiliary import auxiliary_streams
from ...codi_backend.sampling.best_of_n import default_candidates
from ...codi_backend.sampling.noise import MAX_CANDIDATES
from ..alignment import mode_input, strength_input
from ..latents.empty import (
    batch_input,
    codi_config,
    empty_latent,
    frames_input,
    seconds_input,
    size_inputs,
    stream_shape,
)
from ..runtime.alignment_options import mode_of, with_settings
from ..runtime.latent_packing import STREAMS, names_of, samples_of, split
from ..runtime.sample_wrapper import check_latent
from ..runtime.types import CATEGORY
from .best_of_n import BestOfN
from .guider import MAX_CFG, cfg_input

# The settings of `codi generate` with the built-in model.
DEFAULT_SAMPLER, DEFAULT_SCHEDULER, DEFAULT_STEPS = "dpmpp_2m_sde", "sgm_uniform", 30


def _prompt_inputs() -> list[io.Input]:
    return [
        io.Model.Input("model", tooltip="A CoDi model."),
        io.Conditioning.Input("positive", tooltip="The prompt."),
        io.Conditioning.Input("negative", tooltip="The unconditional embedding, or a negative prompt."),
    ]


def _sampler_inputs() -> list[io.Input]:
    return [
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=0xFFFFFFFFFFFFFFFF,
            control_after_generate=True,
            tooltip="Seed of the noise; the same seed gives the same result.",
        ),
        io.Int.Input("steps", default=DEFAULT_STEPS, min=1, max=STEPS, tooltip="Number of denoising steps."),
        cfg_input(),
        io.Combo.Input(
            "sampler_name",
            options=comfy.samplers.KSampler.SAMPLERS,
            default=DEFAULT_SAMPLER,
            tooltip="The sampling algorithm.",
        ),
        io.Combo.Input(
            "scheduler",
            options=comfy.samplers.KSampler.SCHEDULERS,
            default=DEFAULT_SCHEDULER,
            tooltip="The schedule of noise levels over the steps.",
        ),
    ]


def candidates_input() -> io.Input:
    return io.Int.Input(
        "candidates",
        default=0,
        min=0,
        max=MAX_CANDIDATES,
        optional=True,
        tooltip="Best-of-N: number of candidates per result; the one whose streams agree best is kept. 0: the model's "
        "own number, 6 for the built-in CoDi, which takes three times as long as 1. A single stream has one candidate.",
    )


def sample(
    model, positive, negative, latent, seed, steps, cfg, sampler_name, scheduler, denoise=1.0, candidates=0
) -> dict:
    """The denoised LATENT, by the stock KSampler, or by best-of-N around its sampler.

    `ValueError` that begins with the input's name for a number out of range.
    """
    steps = require_whole(steps, "steps", 1, STEPS)
    cfg = require_number(cfg, "cfg", -MAX_CFG, MAX_CFG)
    denoise = require_number(denoise, "denoise", 0, 1)
    number = require_whole(candidates, "candidates", 0, MAX_CANDIDATES)
    config, streams = codi_config(model), split(latent["samples"])
    if not number:
        names = names_of([stream.shape for stream in streams], config)
        number = default_candidates(config, names, mode_of(model.model_options))
    if number == 1:
        return stock.common_ksampler(
            model, seed, steps, cfg, sampler_name, scheduler, positive, negative, latent, denoise=denoise
        )[0]
    sigmas = comfy.samplers.KSampler(
        model, steps, model.load_device, sampler_name, scheduler, denoise, model.model_options
    ).sigmas
    noise = comfy.sample.prepare_noise(latent["samples"], seed, latent.get("batch_index"))
    samples = comfy.sample.sample_custom(
        model,
        noise,
        cfg,
        BestOfN(comfy.samplers.sampler_object(sampler_name), number),
        sigmas,
        positive,
        negative,
        latent["samples"],
        noise_mask=latent.get("noise_mask"),
        callback=latent_preview.prepare_callback(model, len(sigmas) - 1),
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        seed=seed,
    )
    return latent | {"samples": samples}


class CoDiSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiSampler",
            display_name="CoDi Sampler",
            category=f"{CATEGORY}/sampling",
            description="Denoises all streams of a latent jointly, with latent alignment. "
            "It combines CoDi Alignment and KSampler in one node.",
            search_aliases=["ksampler", "joint sampler", "latent alignment", "any-to-any", "codi"],
            inputs=[
                *_prompt_inputs(),
                io.Latent.Input(
                    "latent_image", tooltip="The streams to denoise. Noise masks apply, so streams can be held."
                ),
                *_sampler_inputs(),
                mode_input(),
                strength_input("Factor of the cross-attention between the streams; 1 is the value of the training."),
                io.Float.Input(
                    "denoise",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Share of the noise levels to run: 1 starts from noise alone, lower values keep more of "
                    "the input latent, for variations.",
                ),
                candidates_input(),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="The denoised streams.")],
        )

    @classmethod
    def execute(cls, model, latent_image, mode, strength, **settings) -> io.NodeOutput:
        streams = split(samples_of(latent_image, "latent_image"))
        check_latent([stream.shape for stream in streams], codi_config(model))
        aligned = with_settings(model, alignment=mode, strength=strength)
        return io.NodeOutput(sample(aligned, latent=latent_image, **settings))


def _schema(name: str, what: str, sizes: list[io.Input]) -> io.Schema:
    return io.Schema(
        node_id=f"CoDiSample{name}",
        display_name=f"CoDi Sample {name}",
        category=f"{CATEGORY}/sampling",
        description=f"Generates {what} from a prompt of any modality: an empty latent and a sampler in one node.",
        search_aliases=["ksampler", f"to {name.lower()}", f"generate {name.lower()}", "codi"],
        inputs=[*_prompt_inputs(), *sizes, batch_input(), *_sampler_inputs(), candidates_input()],
        outputs=[io.Latent.Output(display_name="latent", tooltip=f"The latent of the {what}.")],
    )


def _sample_one(model, name: str, batch_size: int, settings: dict, **size) -> io.NodeOutput:
    """One stream, with the same auxiliary streams as by `codi generate`, see `sampling.auxiliary`."""
    config = codi_config(model)
    shapes = [stream_shape(config, name, **size)]
    wanted = auxiliary_streams(config, [name], mode=mode_of(model.model_options))
    for other in sorted(wanted, key=STREAMS.index):
        if modality(other).network in config.diffuser.networks:
            shapes.append(stream_shape(config, other, **size))
    latent = sample(model, latent=empty_latent(config, shapes, batch_size), **settings)
    return io.NodeOutput(latent | {"samples": split(latent["samples"])[0]})


class CoDiSampleImage(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return _schema("Image", "images", size_inputs("image"))

    @classmethod
    def execute(cls, model, width, height, batch_size, **settings) -> io.NodeOutput:
        return _sample_one(model, "image", batch_size, settings, width=width, height=height)


class CoDiSampleVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return _schema("Video", "videos", [*size_inputs("video"), frames_input()])

    @classmethod
    def execute(cls, model, width, height, frames, batch_size, **settings) -> io.NodeOutput:
        return _sample_one(model, "video", batch_size, settings, width=width, height=height, frames=frames)


class CoDiSampleAudio(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return _schema("Audio", "audio", [seconds_input()])

    @classmethod
    def execute(cls, model, seconds, batch_size, **settings) -> io.NodeOutput:
        return _sample_one(model, "audio", batch_size, settings, seconds=seconds)


class CoDiSampleText(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return _schema("Text", "texts", [])

    @classmethod
    def execute(cls, model, batch_size, **settings) -> io.NodeOutput:
        return _sample_one(model, "text", batch_size, settings)
