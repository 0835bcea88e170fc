"""Editing what a text latent says."""

from __future__ import annotations

from comfy_api.latest import io

from ..codi_backend.prompts.hints import encoding_hints
from ..codi_backend.versatile.editing import edit_text_latent
from .hints import show_hints
from .streams import find, from_backend, samples_of, split, split_masks, to_backend, with_masks
from .types import CATEGORY, TextVaeType


class CoDiEditTextLatent(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiEditTextLatent",
            display_name="CoDi Edit Text Latent",
            category=f"{CATEGORY}/latent",
            description="Takes out of a text latent what one text says, and puts in what another one says.",
            search_aliases=["text editing", "image editing", "negative", "versatile diffusion", "optimus", "codi"],
            inputs=[
                io.Latent.Input(
                    "samples", tooltip="A latent with a text stream, such as one sampled from the context of an image."
                ),
                TextVaeType.Input("text_vae", tooltip="The text VAE of the same checkpoint."),
                io.String.Input(
                    "negative", default="", multiline=True, tooltip="What is to go; empty to take nothing out."
                ),
                io.String.Input(
                    "positive", default="", multiline=True, tooltip="What is to come; empty to put nothing in."
                ),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="The edited texts, to be decoded.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, samples, text_vae, negative, positive) -> io.NodeOutput:
        if text_vae is None:
            raise ValueError("text_vae: the loaded checkpoint has no text autoencoder; load one that has.")
        latent = find(samples_of(samples), "text", text_vae.config.latent_dim)
        texts = [to_backend(text_vae.encode([text]), "text") if text.strip() else None for text in (negative, positive)]
        show_hints(cls, encoding_hints([negative, positive], text_vae.config))
        edited = from_backend(edit_text_latent(to_backend(latent, "text"), *texts), "text")
        streams = [edited if stream is latent else stream for stream in split(samples["samples"])]
        return io.NodeOutput(with_masks(samples, streams, split_masks(samples)))
