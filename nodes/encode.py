"""What people see, hear and read to latents, to be varied or held."""

from __future__ import annotations

import logging

import torch
from comfy_api.latest import io
from torch import Tensor

from ..codi_backend.checks import require_number, require_whole
from ..codi_backend.latent_shapes import MAX_FRAMES, MAX_SECONDS
from ..codi_backend.prompts.hints import encoding_hints
from .decode import MAX_FRAME_RATE, MIN_FRAME_RATE
from .hints import show_hints
from .media_inputs import audio_samples, image_pixels, video_components
from .types import CATEGORY, AudioVaeType, TextVaeType


def _require(part, name: str, kind: str) -> None:
    if part is None:
        raise ValueError(f"{name}: the loaded checkpoint has no {kind} autoencoder; load one that has.")


def _encoded(pixels: Tensor, vae, name: str) -> Tensor:
    """Images ``[B, H, W, C]`` -> ``[B, C, h, w]``; `ValueError` about the input `name` for a size that does not fit."""
    _require(vae, "vae", "image")
    pixels = image_pixels(pixels, name)
    height, width = pixels.shape[2:]
    unit = vae.spacial_compression_encode()
    fitting = [max(unit, size // unit * unit) for size in (width, height)]
    if fitting != [width, height]:
        raise ValueError(
            f"{name}: {width} x {height} pixels do not fit this VAE, which takes multiples of {unit}; "
            f"scale it to {fitting[0]} x {fitting[1]}, as Upscale Image does."
        )
    return vae.encode(pixels.movedim(1, -1))


class CoDiEncodeImage(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiEncodeImage",
            display_name="CoDi Encode Image",
            category=f"{CATEGORY}/encode",
            description="Encodes images as the image stream of a latent, to be held or varied.",
            search_aliases=["vae encode", "image to latent", "img2img", "codi"],
            inputs=[
                io.Image.Input("image", tooltip="Images; width and height must be multiples of 8 pixels."),
                io.Vae.Input("vae", tooltip="The VAE from CoDi Load Model."),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="A latent with an image stream.")],
        )

    @classmethod
    def execute(cls, image, vae) -> io.NodeOutput:
        return io.NodeOutput({"samples": _encoded(image, vae, "image")})


class CoDiEncodeVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiEncodeVideo",
            display_name="CoDi Encode Video",
            category=f"{CATEGORY}/encode",
            description="Encodes a video as the video stream of a latent, to be held or varied.",
            search_aliases=["vae encode", "video to latent", "vid2vid", "frames", "codi"],
            inputs=[
                io.MultiType.Input(
                    "video",
                    [io.Video, io.Image],
                    tooltip="A video, or its frames; width and height must be multiples of 8 pixels.",
                ),
                io.Vae.Input("vae", tooltip="The VAE from CoDi Load Model."),
                io.Float.Input(
                    "frame_rate",
                    default=0.0,
                    min=0.0,
                    max=MAX_FRAME_RATE,
                    step=0.01,
                    tooltip="How many frames of each second of a video are taken; 0 is the rate that the model was "
                    "trained on. Of an input that is frames already, each is taken.",
                ),
                io.Int.Input(
                    "frames",
                    default=0,
                    min=0,
                    max=MAX_FRAMES,
                    tooltip="How many frames are taken from the beginning, if there are so many; 0 is the number that "
                    "the model was trained on. Video Slice before this node chooses another part.",
                ),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="A latent with a video stream.")],
        )

    @classmethod
    def execute(cls, video, vae, frame_rate, frames) -> io.NodeOutput:
        _require(vae, "vae", "image")
        frame_rate = require_number(frame_rate, "frame_rate", 0, MAX_FRAME_RATE)
        frames = require_whole(frames, "frames", 0, MAX_FRAMES)
        pictures = video if torch.is_tensor(video) else _at_rate(video_components(video), frame_rate, vae)
        if len(pictures) == 0:
            raise ValueError("video: this video has no frames; connect one that has.")
        count = frames or getattr(vae, "frames", MAX_FRAMES)
        if len(pictures) > count:
            rest = "Get Image from Batch" if torch.is_tensor(video) else "Video Slice"
            logging.warning(
                "CoDi Encode Video: the first %d of %d frames are encoded; raise frames, or choose another part by %s.",
                count,
                len(pictures),
                rest,
            )
        pictures = pictures[:count]
        return io.NodeOutput({"samples": _encoded(pictures, vae, "video").movedim(0, 1)[None]})


def _at_rate(components, frame_rate: float, vae) -> Tensor:
    """The frames ``[T, H, W, 3]`` that a video shows at so many moments of a second, from its first one on."""
    own = require_number(components.frame_rate, "video: its frame rate", MIN_FRAME_RATE, 1000)
    frame_rate = frame_rate or getattr(vae, "frame_rate", own)
    count = len(components.images)
    # The rates of video files are rounded, and must not make a frame be seen twice.
    moments = torch.arange(max(1, round(count / own * frame_rate))) / frame_rate + 1e-3
    return components.images[(moments * own).long().clamp(max=count - 1)] if count else components.images


class CoDiEncodeAudio(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiEncodeAudio",
            display_name="CoDi Encode Audio",
            category=f"{CATEGORY}/encode",
            description="Encodes sounds as the audio stream of a latent, to be held or varied.",
            search_aliases=["vae encode audio", "audio to latent", "sound", "codi"],
            inputs=[
                io.Audio.Input("audio", tooltip="Sounds of any rate; of several channels the mean is taken."),
                AudioVaeType.Input("audio_vae", tooltip="The audio VAE from CoDi Load Model."),
                io.Float.Input(
                    "seconds",
                    default=0.0,
                    min=0.0,
                    max=MAX_SECONDS,
                    step=0.01,
                    tooltip="Length of the stream, rounded up to the model's steps: longer sounds are cut, shorter "
                    "ones followed by silence; 0 is the length that the model was trained on. Trim Audio Duration "
                    "before this node chooses another part.",
                ),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="A latent with an audio stream.")],
        )

    @classmethod
    def execute(cls, audio, audio_vae, seconds) -> io.NodeOutput:
        _require(audio_vae, "audio_vae", "audio")
        waveform, rate = audio_samples(audio)
        seconds = require_number(seconds, "seconds", 0, MAX_SECONDS)
        steps = audio_vae.steps(seconds or audio_vae.config.seconds)
        taken, given = audio_vae.seconds(steps), waveform.shape[-1] / rate
        if given > taken + 0.01:
            logging.warning(
                "CoDi Encode Audio: the first %.2f of %.2f s are encoded; raise seconds, or choose another part by "
                "Trim Audio Duration.",
                taken,
                given,
            )
        return io.NodeOutput({"samples": audio_vae.encode(waveform, rate, steps)})


class CoDiEncodeText(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiEncodeText",
            display_name="CoDi Encode Text",
            category=f"{CATEGORY}/encode",
            description="Encodes texts as the text stream of a latent, to be held or varied.",
            search_aliases=["text to latent", "optimus", "caption", "codi"],
            is_input_list=True,
            inputs=[
                io.String.Input(
                    "text",
                    multiline=True,
                    default="three red stars, slowly",
                    tooltip="A text; a list of texts becomes a batch.",
                ),
                TextVaeType.Input("text_vae", tooltip="The text VAE from CoDi Load Model."),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="A latent with a text stream.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, text: list[str], text_vae: list) -> io.NodeOutput:
        (text_vae,) = text_vae
        _require(text_vae, "text_vae", "text")
        latent = text_vae.encode(text)
        show_hints(cls, encoding_hints(text, text_vae.config))
        return io.NodeOutput({"samples": latent})
