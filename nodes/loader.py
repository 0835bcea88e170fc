"""Loading a checkpoint."""

from __future__ import annotations

from comfy_api.latest import io

from ..codi_backend.checkpoints import Checkpoint, read_parts
from .files import BUILT_IN, fingerprint, locate, model_choices
from .managed import ManagedAudioVae, ManagedTextEncoder, image_vae
from .model import build_patcher
from .types import CATEGORY, AudioVaeType, TextEncoderType


def load_diffuser(source: str | list[str], disable_dynamic: bool = False, checkpoint: Checkpoint | None = None):
    """The MODEL of a checkpoint. ComfyUI calls this again when it has to build the patcher anew."""
    checkpoint = checkpoint or read_parts(source)
    weights = {}
    for network in checkpoint.config.diffuser.networks:
        for key, value in checkpoint.parts[f"diffuser.{network}"].items():
            weights[f"diffuser.networks.{network}.{key}"] = value
    if not weights:
        raise ValueError("checkpoint: this file holds no diffuser; choose a file that has one.")
    patcher = build_patcher(checkpoint.config, weights, disable_dynamic)
    patcher.cached_patcher_init = (load_diffuser, (source,))
    return patcher


class CoDiLoadModel(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiLoadModel",
            display_name="CoDi Load Model",
            category=f"{CATEGORY}/loaders",
            description="Loads CoDi: the diffuser of all modalities, the prompt encoder and the decoders.",
            search_aliases=["checkpoint", "any-to-any", "composable diffusion", "codi", "loader"],
            inputs=[
                io.Combo.Input(
                    "checkpoint",
                    options=model_choices(),
                    default=BUILT_IN,
                    tooltip="The small model that comes with this pack, or a file in models/codi.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="Denoises any set of streams; use it with KSampler."),
                TextEncoderType.Output(display_name="text_encoder", tooltip="Turns a text prompt into conditioning."),
                io.Vae.Output(display_name="vae", tooltip="Decodes images; the stock VAE nodes take it too."),
                AudioVaeType.Output(display_name="audio_vae", tooltip="Decodes sounds."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, checkpoint):
        return fingerprint(checkpoint)

    @classmethod
    def execute(cls, checkpoint) -> io.NodeOutput:
        source = locate(checkpoint)
        try:
            loaded = read_parts(source)
        except (ValueError, FileNotFoundError) as error:
            raise ValueError(f"checkpoint: {error}") from error
        config, parts = loaded.config, loaded.parts
        text = parts.get("prompt_encoders.text")
        image = parts.get("autoencoders.image")
        audio = parts.get("autoencoders.audio")
        return io.NodeOutput(
            load_diffuser(source, checkpoint=loaded),
            ManagedTextEncoder(config.text_encoder, text) if text else None,
            image_vae(config.image_autoencoder, image) if image else None,
            ManagedAudioVae(config.audio_autoencoder, audio) if audio else None,
        )
