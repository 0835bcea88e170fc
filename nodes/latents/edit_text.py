"""Editing of text latents."""

from __future__ import annotations

from comfy_api.latest import io

from ...codi_backend.conditioning.editing import edit_text_latent
from ...codi_backend.conditioning.text_hints import encoding_hints
from ..runtime.hints import show_hints
from ..runtime.latent_packing import find, from_backend, samples_of, split, split_masks, to_backend, with_masks
from ..runtime.required_inputs import require_autoencoder
from ..runtime.types import CATEGORY, TextVaeType


class CoDiEditTextLatent(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiEditTextLatent",
            display_name="CoDi Edit Text Latent",
            category=f"{CATEGORY}/latent",
            description="Removes the content of one text from a text latent and adds that of another.",
            search_aliases=["text editing", "image editing", "negative", "versatile diffusion", "optimus", "codi"],
            inputs=[
                io.Latent.Input(
                    "samples", tooltip="A latent with a text stream, such as one sampled from the context of an image."
                ),
                TextVaeType.Input("text_vae", tooltip="The text VAE of the same checkpoint."),
                io.String.Input(
                    "negative",
                    default="",
                    multiline=True,
                    tooltip="The text to remove; empty removes nothing.",
                ),
                io.String.Input("positive", default="", multiline=True, tooltip="The text to add; empty adds nothing."),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="The latent of the edited texts.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, samples, text_vae, negative, positive) -> io.NodeOutput:
        require_autoencoder(text_vae, "text_vae", "text")
        latent = find(samples_of(samples), "text", text_vae.config.latent_dim)
        texts = [to_backend(text_vae.encode([text]), "text") if text.strip() else None for text in (negative, positive)]
        show_hints(cls, encoding_hints([negative, positive], text_vae.config))
        edited = from_backend(edit_text_latent(to_backend(latent, "text"), *texts), "text")
        streams = [edited if stream is latent else stream for stream in split(samples["samples"])]
        return io.NodeOutput(with_masks(samples, streams, split_masks(samples)))
