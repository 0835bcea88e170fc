"""Samplers of our own. What they do is what the stock KSampler does; they only ask for less."""

from __future__ import annotations

import comfy.samplers
from comfy_api.latest import io

import nodes as stock

from ..codi_backend.checks import require_number, require_whole
from ..codi_backend.diffusion import STEPS
from ..codi_backend.modality import modality
from .alignment import mode_input, strength_input
from .guider import MAX_CFG, cfg_input
from .latents import (
    batch_input,
    codi_config,
    empty_latent,
    frames_input,
    seconds_input,
    size_inputs,
    stream_shape,
)
from .listening import KEY, with_settings
from .sampling_run import check_latent
from .streams import STREAMS, samples_of, split
from .types import CATEGORY

# What `codi generate` does outside ComfyUI with the built-in model.
DEFAULT_SAMPLER, DEFAULT_SCHEDULER, DEFAULT_STEPS = "dpmpp_2m_sde", "sgm_uniform", 30


def _prompt_inputs() -> list[io.Input]:
    return [
        io.Model.Input("model", tooltip="A CoDi model."),
        io.Conditioning.Input("positive", tooltip="The prompt."),
        io.Conditioning.Input("negative", tooltip="What guidance leads away from: the unconditional prompt."),
    ]


def _sampler_inputs() -> list[io.Input]:
    return [
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=0xFFFFFFFFFFFFFFFF,
            control_after_generate=True,
            tooltip="Where the noise comes from; the same seed gives the same result.",
        ),
        io.Int.Input("steps", default=DEFAULT_STEPS, min=1, max=STEPS, tooltip="How many denoising steps to take."),
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
            tooltip="How noise levels are spread over the steps.",
        ),
    ]


def sample(model, positive, negative, latent, seed, steps, cfg, sampler_name, scheduler, denoise=1.0) -> dict:
    """The denoised LATENT. `ValueError` that begins with the input's name for a number out of range."""
    steps = require_whole(steps, "steps", 1, STEPS)
    cfg = require_number(cfg, "cfg", -MAX_CFG, MAX_CFG)
    denoise = require_number(denoise, "denoise", 0, 1)
    return stock.common_ksampler(
        model, seed, steps, cfg, sampler_name, scheduler, positive, negative, latent, denoise=denoise
    )[0]


class CoDiSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiSampler",
            display_name="CoDi Sampler",
            category=f"{CATEGORY}/sampling",
            description="Denoises all streams of a latent together while they listen to each other. "
            "The same as CoDi Alignment and KSampler, in one node.",
            search_aliases=["ksampler", "joint sampler", "latent alignment", "any-to-any", "codi"],
            inputs=[
                *_prompt_inputs(),
                io.Latent.Input("latent_image", tooltip="The streams; masks are kept, so streams can be held."),
                *_sampler_inputs(),
                mode_input(),
                strength_input("How much of what a stream hears is added to it; 1 is how the model was trained."),
                io.Float.Input(
                    "denoise",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="1 starts from noise alone; less keeps that much less of what the latent holds, for "
                    "variations.",
                ),
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
        description=f"Generates {what} from a prompt of any kind: an empty latent and a sampler in one node.",
        search_aliases=["ksampler", f"to {name.lower()}", f"generate {name.lower()}", "codi"],
        inputs=[*_prompt_inputs(), *sizes, batch_input(), *_sampler_inputs()],
        outputs=[io.Latent.Output(display_name="latent", tooltip=f"{what.capitalize()}, to be decoded.")],
    )


def _sample_one(model, name: str, batch_size: int, settings: dict, **size) -> io.NodeOutput:
    """One stream, made in the same company as by `codi generate`, see `CoDi.companions`."""
    config = codi_config(model)
    shapes = [stream_shape(config, name, **size)]
    alignment = model.model_options["transformer_options"].get(KEY, {}).get("alignment", "paper")
    for other in sorted(config.company([name], alignment=alignment), key=STREAMS.index):
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
        return _schema("Audio", "sounds", [seconds_input()])

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
