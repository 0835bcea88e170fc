"""What happens around every run of a sampler, stock ones included: checks, held streams, previews."""

from __future__ import annotations

from collections.abc import Sequence

import comfy.utils
import torch
from torch import Tensor

from ...codi_backend.checks.inputs import MAX_EMBEDDING, MAX_LATENT, require_unit_range
from ...codi_backend.checks.numbers import MAX_SCALE, require_finite, require_number
from ...codi_backend.config import CoDiConfig, ImageAutoencoderConfig, UNetConfig
from ...codi_backend.modalities import MAX_FRAMES, downscale, modality, multiple_of, step_samples
from .alignment_options import KEY
from .context_tokens import FOR_TEXT, Shares
from .context_tokens import KEY as CONTEXTS
from .context_windows import by_time
from .latent_packing import names_of, require_content, require_latent
from .prompt_schedule import check_schedule

# What conditioning may carry that other diffusion models use, and what a user calls it.
FOREIGN = {"control": "a ControlNet", "gligen": "GLIGEN"}
REGIONAL = ("area", "mask")


def around_sampling(
    executor, noise, latent_image, sampler, sigmas, denoise_mask=None, callback=None, *rest, latent_shapes=None, **named
):
    """Wrapper of ComfyUI's kind OUTER_SAMPLE.

    `ValueError` with a sentence about the sampler node's input where something does not fit the model.
    """
    guider = executor.class_obj
    model = guider.model_patcher.model
    shapes = latent_shapes or [latent_image.shape]
    names = check_latent(shapes, model.codi_config)
    _check_numbers(guider, noise, sigmas, denoise_mask)
    _check_frames(names, shapes, guider.model_options)
    model.window_shapes = shapes
    if (handler := guider.model_options.get("context_handler")) is not None:
        windows, model.window_shapes = by_time(handler, model.codi_config, names, shapes)
        guider.model_options["context_handler"] = windows
    for name, stream in zip(names, comfy.utils.unpack_latents(latent_image, shapes)):
        require_latent(stream, "latent_image", name)
    for prompt_type, conds in guider.conds.items():
        check_prompts(prompt_type, conds, names, shapes[0][0], model.codi_config)
    model.latent_shapes = shapes  # for the estimate of memory, which comes before ComfyUI sets them
    model.num_candidates = getattr(sampler, "num_candidates", 1)
    if held := _held(names, shapes, denoise_mask, guider.model_options):
        options = guider.model_options["transformer_options"]
        clean = dict(zip(names, comfy.utils.unpack_latents(model.process_latent_in(latent_image), shapes)))
        options[KEY] = options.get(KEY, {}) | {
            "predict": [name for name in names if name not in held],
            "held": {name: clean[name] for name in held},
        }
    if callback is not None:
        callback = model.previews.around_callback(callback, names, shapes, guider.model_patcher)
    output = executor(
        noise, latent_image, sampler, sigmas, denoise_mask, callback, *rest, latent_shapes=latent_shapes, **named
    )
    if held:  # exactly, which not every sampler does
        pairs = zip(names, *(comfy.utils.unpack_latents(packed, shapes) for packed in (latent_image, output)))
        output, _ = comfy.utils.pack_latents([kept.to(new) if name in held else new for name, kept, new in pairs])
    return output


def _check_numbers(guider, noise: Tensor, sigmas: Tensor, denoise_mask: Tensor | None) -> None:
    """`ValueError` about the sampler node's input that holds a number that cannot be right."""
    if (cfg := getattr(guider, "cfg", None)) is not None:
        require_number(cfg, "cfg", -MAX_SCALE, MAX_SCALE)
    require_finite(noise, "noise: this", "connect RandomNoise", MAX_LATENT)
    require_finite(sigmas, "sigmas: this", "connect BasicScheduler")
    if denoise_mask is not None:
        require_unit_range(denoise_mask, "latent_image: its noise mask")


def _check_frames(names: list[str], shapes: Sequence[Sequence[int]], model_options: dict) -> None:
    """`ValueError` for a video that is too long to be denoised at once, without context windows."""
    frames = dict(zip(names, shapes)).get("video", (0, 0, 1))[2]
    if frames > MAX_FRAMES and "context_handler" not in model_options:
        raise ValueError(
            f"latent_image: the video latent has {frames} frames; give it 1 to {MAX_FRAMES}, or connect the model "
            "through Context Windows (Manual) with dim 2."
        )


def check_latent(shapes: Sequence[Sequence[int]], config: CoDiConfig, source: str = "latent_image") -> list[str]:
    """The modalities of the streams of a latent.

    `ValueError` about the node's input `source` if the model cannot denoise one of them.
    """
    for shape in shapes:
        require_content(shape, source)
    names = names_of(shapes, config, source)
    if len({shape[0] for shape in shapes}) > 1:
        sizes = ", ".join(f"{name} {shape[0]}" for name, shape in zip(names, shapes))
        raise ValueError(
            f"{source}: the batch sizes of the streams differ ({sizes}); give all of them the same batch size."
        )
    for name, shape in zip(names, shapes):
        _check_size(name, shape, config.diffuser.networks[modality(name).network], config, source)
    return names


def _check_size(name: str, shape: Sequence[int], network: UNetConfig, config: CoDiConfig, source: str) -> None:
    if name == "text":
        return
    multiple = multiple_of(network)
    if any(size % multiple for size in shape[-2:]):
        autoencoder = config.audio_autoencoder if name == "audio" else config.image_autoencoder
        raise ValueError(
            f"{source}: the {name} latent is {shape[-2]} x {shape[-1]}, where the model {config.name!r} needs "
            f"multiples of {multiple}{_remedy(autoencoder, multiple)}."
        )
    if name == "video" and not network.temporal:
        raise ValueError(
            f"{source}: the model {config.name!r} makes images, not videos; switch video off in CoDi Empty Latent."
        )


def _remedy(autoencoder, multiple: int) -> str:
    if autoencoder is None:
        return ""
    if isinstance(autoencoder, ImageAutoencoderConfig):
        return f"; make width and height multiples of {multiple * downscale(autoencoder)} pixels"
    seconds = multiple * step_samples(autoencoder) / autoencoder.mel.sample_rate
    return f"; make the audio last a multiple of {seconds:g} seconds"


def check_prompts(prompt_type: str, conds: list[dict], names: list[str], batch: int, config: CoDiConfig) -> None:
    """`ValueError` for a prompt that the model cannot take; `prompt_type` is the guider's input."""
    width = next(iter(config.diffuser.networks.values())).context_dim
    for cond in conds:
        embedding = cond.get("cross_attn")
        if embedding is None or embedding.shape[-1] != width:
            found = "nothing" if embedding is None else f"an embedding of width {embedding.shape[-1]}"
            raise ValueError(
                f"{prompt_type}: the model {config.name!r} takes prompts of width {width} but got {found}; "
                "encode the prompt with the encoders that were loaded with this model."
            )
        _check_contexts(prompt_type, cond, names, config)
        check_schedule(prompt_type, cond, names)
        if len(embedding) not in (1, batch):
            raise ValueError(
                f"{prompt_type}: {len(embedding)} prompts do not go with {batch} results; give one prompt, "
                f"or set batch_size to {len(embedding)} in CoDi Empty Latent."
            )
        for tokens in (embedding, cond.get(FOR_TEXT)):
            if tokens is not None:
                require_finite(tokens, f"{prompt_type}: this prompt", "connect another", MAX_EMBEDDING)
        for key, kind in FOREIGN.items():
            if cond.get(key) is not None:
                raise ValueError(f"{prompt_type}: {kind} does not work with CoDi; connect the prompt without it.")
        if any(cond.get(key) is not None for key in REGIONAL) and names not in (["image"], ["video"]):
            raise ValueError(
                f"{prompt_type}: a prompt for an area or under a mask works for an image or a video alone, not for "
                f"{', '.join(names)}; remove Conditioning (Set Area) or Conditioning (Set Mask)."
            )


def _check_contexts(prompt_type: str, cond: dict, names: list[str], config: CoDiConfig) -> None:
    shares: Shares | None = cond.get(CONTEXTS)
    kinds = config.diffuser.contexts
    if not kinds:
        if shares is not None:
            raise ValueError(
                f"{prompt_type}: this is a context, and the model {config.name!r} takes prompts; connect a CoDi Prompt "
                "node, or load a Versatile Diffusion."
            )
        return
    if shares is None:
        raise ValueError(
            f"{prompt_type}: this is a prompt, and the model {config.name!r} takes contexts; connect a CoDi Context "
            "node."
        )
    if strange := [share.kind for share in shares.contexts if share.kind not in kinds]:
        raise ValueError(
            f"{prompt_type}: the model {config.name!r} has no layers for {strange[0]} contexts; give it "
            f"{' or '.join(kinds)}, or load all its files."
        )
    try:
        shares.split(cond["cross_attn"])
    except ValueError as error:
        raise ValueError(f"{prompt_type}: {error}") from error
    other = cond.get(FOR_TEXT)
    if names == ["text"] and other is not None and other.shape[1:] != cond["cross_attn"].shape[1:]:
        raise ValueError(
            f"{prompt_type}: another node has changed the number of tokens, which is not done to those for texts; set "
            "unconditional in CoDi Context (Image) to zeros, black or grey."
        )


def _held(names: list[str], shapes: Sequence[Sequence[int]], mask: Tensor | None, options: dict) -> list[str]:
    """The streams that the noise mask keeps as they are, unless that is all or something changes the mask later."""
    if mask is None or "denoise_mask_function" in options:
        return []
    masks = comfy.utils.unpack_latents(mask, shapes)
    held = [name for name, part in zip(names, masks) if not torch.count_nonzero(part)]
    return held if len(held) < len(names) else []
