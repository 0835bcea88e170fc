"""Prompts of all kinds to CONDITIONING."""

from __future__ import annotations

import torch
from comfy_api.latest import io
from torch import Tensor

from .types import CATEGORY, PromptEncodersType

MIN_SECONDS = 0.01


def _schema(kind: str, description: str, aliases: list[str], content: io.Input, nothing: str) -> io.Schema:
    return io.Schema(
        node_id=f"CoDiPrompt{kind}",
        display_name=f"CoDi Prompt ({kind})",
        category=f"{CATEGORY}/prompts",
        description=description,
        search_aliases=[*aliases, "prompt", "conditioning", "codi"],
        inputs=[
            PromptEncodersType.Input("prompt_encoders", tooltip="The prompt encoders from CoDi Load Model."),
            content,
        ],
        outputs=[
            io.Conditioning.Output(display_name="positive", tooltip="The prompt."),
            io.Conditioning.Output(
                display_name="unconditional",
                tooltip=f"What guidance leads away from: {nothing}. Connect it to KSampler's negative.",
            ),
        ],
    )


def _conditionings(prompt_encoders, kind: str, *content) -> io.NodeOutput:
    if prompt_encoders is None:
        raise ValueError("prompt_encoders: nothing is connected; connect the prompt encoders of CoDi Load Model.")
    embedding, unconditional = prompt_encoders.prompt(kind, *content)
    return io.NodeOutput([[embedding, {}]], [[unconditional, {}]])


def _check_finite(values: Tensor, name: str) -> None:
    if not values.isfinite().all():
        raise ValueError(
            f"{name}: this holds values that are not finite (NaN or infinity); look at the node that it comes from."
        )


def prompt_pixels(images: Tensor, name: str) -> Tensor:
    """An IMAGE as ``[B, 3, H, W]``, checked. `ValueError` begins with the input's `name`."""
    if images.ndim != 4 or images.shape[-1] < 3:
        raise ValueError(f"{name}: this is of shape {list(images.shape)}; connect pictures in colour, [B, H, W, 3].")
    if images.numel() == 0:
        raise ValueError(f"{name}: there is no picture in this; connect at least one.")
    _check_finite(images, name)
    return images[..., :3].movedim(-1, 1)


def prompt_mask(mask: Tensor, name: str) -> Tensor:
    """A MASK as ``[B, H, W]``, checked. `ValueError` begins with the input's `name`."""
    mask = mask[None] if mask.ndim == 2 else mask
    if mask.ndim != 3 or mask.numel() == 0:
        raise ValueError(f"{name}: this is of shape {list(mask.shape)}; connect a mask, [B, H, W].")
    _check_finite(mask, name)
    return mask


def prompt_clip(video) -> Tensor:
    """A VIDEO, or an IMAGE batch that is its frames, as ``[1, 3, T, H, W]``, checked."""
    frames = video if torch.is_tensor(video) else video.get_components().images
    return prompt_pixels(frames, "video").movedim(0, 1)[None]


def prompt_sound(audio: dict | None) -> tuple[Tensor, int]:
    """An AUDIO as waveform ``[B, C, N]`` and sample rate, checked."""
    if audio is None:
        raise ValueError("audio: there is no sound in this, as in a video without a sound track; connect one that has.")
    waveform, sample_rate = audio["waveform"], int(audio["sample_rate"])
    if sample_rate <= 0:
        raise ValueError(
            f"audio: a sample rate of {sample_rate} Hz is impossible; look at the node that it comes from."
        )
    if waveform.ndim != 3 or waveform.numel() < MIN_SECONDS * sample_rate:
        raise ValueError("audio: this sound is empty; connect one that lasts at least a hundredth of a second.")
    _check_finite(waveform, "audio")
    return waveform, sample_rate


class CoDiPromptText(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return _schema(
            "Text",
            "Encodes a text prompt.",
            ["text encode", "clip text encode"],
            io.String.Input(
                "text",
                multiline=True,
                dynamic_prompts=True,
                default="three red stars, slowly",
                tooltip="What is to be seen and heard; leave it empty to generate without a prompt.",
            ),
            "the empty text",
        )

    @classmethod
    def execute(cls, prompt_encoders, text) -> io.NodeOutput:
        return _conditionings(prompt_encoders, "text", [text])


class CoDiPromptImage(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return _schema(
            "Image",
            "Encodes images as prompts.",
            ["image to image", "image variation", "clip vision encode", "unclip", "ip adapter"],
            io.Image.Input(
                "image",
                tooltip="Of any size; the centre square is looked at. A batch gives one prompt for each image.",
            ),
            "mid-grey",
        )

    @classmethod
    def execute(cls, prompt_encoders, image) -> io.NodeOutput:
        return _conditionings(prompt_encoders, "image", prompt_pixels(image, "image"))


class CoDiPromptVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return _schema(
            "Video",
            "Encodes a video as a prompt.",
            ["video to video", "video to audio", "clip vision encode"],
            io.MultiType.Input(
                "video",
                [io.Video, io.Image],
                tooltip="A video, or images that are its frames. The centre squares are looked at, in some frames "
                "of a long video.",
            ),
            "mid-grey",
        )

    @classmethod
    def execute(cls, prompt_encoders, video) -> io.NodeOutput:
        return _conditionings(prompt_encoders, "video", prompt_clip(video))


class CoDiPromptAudio(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return _schema(
            "Audio",
            "Encodes sounds as prompts.",
            ["audio to image", "audio to video", "clap", "sound to image", "audio encode"],
            io.Audio.Input(
                "audio",
                tooltip="At any sample rate; channels are averaged, and the middle of a long sound is listened to. "
                "A batch gives one prompt for each sound.",
            ),
            "silence",
        )

    @classmethod
    def execute(cls, prompt_encoders, audio) -> io.NodeOutput:
        return _conditionings(prompt_encoders, "audio", *prompt_sound(audio))
