"""Latents to what people see and hear."""

from __future__ import annotations

from comfy_api.latest import io

from .streams import find
from .types import CATEGORY, AudioVaeType


class CoDiDecodeImage(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiDecodeImage",
            display_name="CoDi Decode Image",
            category=f"{CATEGORY}/decode",
            description="Decodes the image stream of a latent.",
            search_aliases=["vae decode", "latent to image", "codi"],
            inputs=[
                io.Latent.Input("samples", tooltip="A latent with an image stream, alone or among others."),
                io.Vae.Input("vae", tooltip="The VAE from CoDi Load Model."),
            ],
            outputs=[io.Image.Output(tooltip="The images of the batch.")],
        )

    @classmethod
    def execute(cls, samples, vae) -> io.NodeOutput:
        if vae is None:
            raise ValueError("vae: the loaded checkpoint has no image autoencoder; load one that has, or another VAE.")
        return io.NodeOutput(vae.decode(find(samples["samples"], "image", vae.latent_channels)))


class CoDiDecodeAudio(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiDecodeAudio",
            display_name="CoDi Decode Audio",
            category=f"{CATEGORY}/decode",
            description="Decodes the audio stream of a latent.",
            search_aliases=["vae decode audio", "latent to audio", "vocoder", "codi"],
            inputs=[
                io.Latent.Input("samples", tooltip="A latent with an audio stream, alone or among others."),
                AudioVaeType.Input("audio_vae", tooltip="The audio VAE from CoDi Load Model."),
            ],
            outputs=[io.Audio.Output(tooltip="The sounds of the batch, mono.")],
        )

    @classmethod
    def execute(cls, samples, audio_vae) -> io.NodeOutput:
        if audio_vae is None:
            raise ValueError("audio_vae: the loaded checkpoint has no audio autoencoder; load one that has.")
        latent = find(samples["samples"], "audio", audio_vae.config.latent_channels)
        return io.NodeOutput({"waveform": audio_vae.decode(latent), "sample_rate": audio_vae.sample_rate})
