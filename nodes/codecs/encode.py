"""Encoders of image, video, audio and text to latents, to hold or to vary."""

from __future__ import annotations

import logging

import torch
from comfy_api.latest import io
from torch import Tensor

from ...codi_backend.checks.numbers import require_number, require_whole
from ...codi_backend.conditioning.text_hints import encoding_hints
from ...codi_backend.modalities import MAX_CLIP_FRAMES, MAX_FRAMES, MAX_SECONDS
from ..runtime.hints import show_hints
from ..runtime.media_inputs import audio_samples, image_pixels, video_components
from ..runtime.required_inputs import require_autoencoder
from ..runtime.types import CATEGORY, AudioVaeType, TextVaeType
from .decode import MAX_FRAME_RATE, MIN_FRAME_RATE


def _encoded(pixels: Tensor, vae, name: str) -> Tensor:
    """Images ``[B, H, W, C]`` -> ``[B, C, h, w]``; `ValueError` about the input `name` for a size that does not fit."""
    require_autoencoder(vae, "vae", "image")
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
            description="Encodes images as the image stream of a latent, to hold or to vary.",
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
            description="Encodes a video as the video stream of a latent, to hold or to vary.",
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
                    tooltip="Frames per second to take from a video; 0 is the frame rate of the model's training. "
                    "A batch of images is used as it is.",
                ),
                io.Int.Input(
                    "frames",
                    default=0,
                    min=0,
                    max=MAX_CLIP_FRAMES,
                    tooltip="The number of frames to take from the beginning, at most; 0 is the number in the model's "
                    "training. Use Video Slice before this node to choose another part.",
                ),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="A latent with a video stream.")],
        )

    @classmethod
    def execute(cls, video, vae, frame_rate, frames) -> io.NodeOutput:
        require_autoencoder(vae, "vae", "image")
        frame_rate = require_number(frame_rate, "frame_rate", 0, MAX_FRAME_RATE)
        frames = require_whole(frames, "frames", 0, MAX_CLIP_FRAMES)
        images = video if torch.is_tensor(video) else _at_rate(video_components(video), frame_rate, vae)
        if len(images) == 0:
            raise ValueError("video: this video has no frames; connect one that has.")
        count = frames or getattr(vae, "frames", MAX_FRAMES)
        if len(images) > count:
            slicer = "Get Image from Batch" if torch.is_tensor(video) else "Video Slice"
            logging.warning(
                "CoDi Encode Video: the first %d of %d frames are encoded; raise frames, or choose another part by %s.",
                count,
                len(images),
                slicer,
            )
        images = images[:count]
        return io.NodeOutput({"samples": _encoded(images, vae, "video").movedim(0, 1)[None]})


def _at_rate(components, frame_rate: float, vae) -> Tensor:
    """The frames ``[T, H, W, 3]`` of a video at so many moments per second, from its first frame on."""
    own = require_number(components.frame_rate, "video: its frame rate", MIN_FRAME_RATE, 1000)
    frame_rate = frame_rate or getattr(vae, "frame_rate", own)
    count = len(components.images)
    # Video files round their rates; the small offset keeps a frame from being taken twice.
    moments = torch.arange(max(1, round(count / own * frame_rate))) / frame_rate + 1e-3
    return components.images[(moments * own).long().clamp(max=count - 1)] if count else components.images


class CoDiEncodeAudio(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiEncodeAudio",
            display_name="CoDi Encode Audio",
            category=f"{CATEGORY}/encode",
            description="Encodes audio as the audio stream of a latent, to hold or to vary.",
            search_aliases=["vae encode audio", "audio to latent", "sound", "codi"],
            inputs=[
                io.Audio.Input("audio", tooltip="Audio at any sample rate. The channels are averaged."),
                AudioVaeType.Input("audio_vae", tooltip="The audio VAE from CoDi Load Model."),
                io.Float.Input(
                    "seconds",
                    default=0.0,
                    min=0.0,
                    max=MAX_SECONDS,
                    step=0.01,
                    tooltip="Length of the stream, rounded up to the model's step. Longer audio is cut, shorter audio "
                    "padded with silence; 0 is the length of the model's training. Use Trim Audio Duration before "
                    "this node to choose another part.",
                ),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="A latent with an audio stream.")],
        )

    @classmethod
    def execute(cls, audio, audio_vae, seconds) -> io.NodeOutput:
        require_autoencoder(audio_vae, "audio_vae", "audio")
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
            description="Encodes texts as the text stream of a latent, to hold or to vary.",
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
        require_autoencoder(text_vae, "text_vae", "text")
        latent = text_vae.encode(text)
        show_hints(cls, encoding_hints(text, text_vae.config))
        return io.NodeOutput({"samples": latent})
