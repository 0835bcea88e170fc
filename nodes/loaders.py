"""The checkpoint loader."""

from __future__ import annotations

import dataclasses

from comfy_api.latest import io
from comfy_execution.graph import ExecutionBlocker

from ..codi_backend.checkpoints import codi as published
from ..codi_backend.checkpoints.native import Checkpoint, read_parts
from ..codi_backend.checkpoints.parts import FIELDS, TIME, part_names
from ..codi_backend.checkpoints.systems import system_by_edition
from ..codi_backend.checkpoints.weight_values import require_finite_weights
from ..codi_backend.conditioning.text_hints import known_words
from ..codi_backend.config import CoDiConfig
from ..codi_backend.modalities import multiple_of
from .runtime.encoder_patchers import ManagedAudioEncoder, ManagedImageEncoder, ManagedTextEncoder, PromptEncoders
from .runtime.files import BUILT_IN, FOLDER, fingerprint, locate, model_choices
from .runtime.model import build_patcher
from .runtime.patchers import Weights
from .runtime.previews import Autoencoders
from .runtime.types import CATEGORY, AudioVaeType, PromptEncodersType, TextVaeType
from .runtime.vae_patchers import ImageVae, ManagedAudioVae, ManagedTextVae


def load_diffuser(
    source: str | list[str],
    networks: tuple[str, ...],
    disable_dynamic: bool = False,
    checkpoint: Checkpoint | None = None,
):
    """The MODEL of some networks of a checkpoint. ComfyUI calls this again to rebuild the patcher."""
    checkpoint = checkpoint or read_parts(source)
    config = _with_scales(checkpoint, networks)
    weights = {}
    for part in _diffuser_parts(config):
        state = checkpoint.take(part, quantised=True)
        require_finite_weights(state, checkpoint.called(part))
        weights |= {f"{_place(part)}.{key}": value for key, value in state.items()}
    patcher = build_patcher(config, weights, disable_dynamic)
    patcher.cached_patcher_init = (load_diffuser, (source, networks))
    return patcher


def _diffuser_parts(config: CoDiConfig) -> list[str]:
    """The parts of a MODEL: its networks and their shared layers."""
    return [part for part in part_names(config) if part not in FIELDS]


def _place(part: str) -> str:
    """The prefix of a part of the diffuser in `model.Network`."""
    group, name = part.split(".")
    if part == TIME:
        return "diffuser.time_embed"
    return f"diffuser.networks.{name}" if group == "diffuser" else f"diffuser.context_sets.{name}"


def _with_scales(checkpoint: Checkpoint, networks: tuple[str, ...]) -> CoDiConfig:
    """The configuration of a model with these networks, with the scale factors of their latents."""
    config = dataclasses.replace(checkpoint.config, diffuser=checkpoint.config.diffuser.only(networks))
    if system := system_by_edition(checkpoint.edition):  # published network files lack the autoencoders' settings
        autoencoders = [field for part, field in FIELDS.items() if part.startswith("autoencoders.")]
        config = dataclasses.replace(config, **{field: getattr(system.CONFIG, field) for field in autoencoders})
    return config


class CoDiLoadModel(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiLoadModel",
            display_name="CoDi Load Model",
            category=f"{CATEGORY}/loaders",
            description="Loads CoDi or Versatile Diffusion: the diffuser, the prompt encoders and the autoencoders.",
            search_aliases=[
                "checkpoint",
                "any-to-any",
                "composable diffusion",
                "versatile diffusion",
                "codi",
                "loader",
            ],
            inputs=[
                io.Combo.Input(
                    "checkpoint",
                    options=model_choices(),
                    default=BUILT_IN,
                    tooltip=f"A built-in small model, a file in models/{FOLDER}, or a folder there (its name ends in a "
                    "slash), which loads all its files together, such as the published ones.",
                ),
                io.Boolean.Input(
                    "image_and_video",
                    default=True,
                    tooltip="Load the network that generates images and videos. Off saves its memory.",
                ),
                io.Boolean.Input(
                    "audio", default=True, tooltip="Load the network that generates audio. Off saves its memory."
                ),
                io.Boolean.Input(
                    "text", default=True, tooltip="Load the network that generates texts. Off saves its memory."
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="Denoises any set of streams; use it with KSampler."),
                PromptEncodersType.Output(
                    display_name="prompt_encoders",
                    tooltip="Encode texts, images, videos and audio as conditioning; each is loaded when it is used.",
                ),
                io.Vae.Output(
                    display_name="vae",
                    tooltip="Encodes and decodes images and video frames; it works with the stock VAE nodes too.",
                ),
                AudioVaeType.Output(display_name="audio_vae", tooltip="Encodes and decodes audio."),
                TextVaeType.Output(display_name="text_vae", tooltip="Encodes and decodes texts."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, checkpoint, **kwargs):
        return fingerprint(checkpoint)

    @classmethod
    def execute(cls, checkpoint, image_and_video=True, audio=True, text=True) -> io.NodeOutput:
        source = locate(checkpoint)
        try:
            found = read_parts(source)
        except (ValueError, FileNotFoundError) as error:
            raise ValueError(f"checkpoint: {error}") from error
        config, parts = found.config, frozenset(found.parts)

        def part(name: str, kind: type, *more):
            return kind(getattr(config, FIELDS[name]), Weights(source, name), *more) if name in parts else None

        # A file without networks counts as one of the published model's.
        audio_network = config.diffuser.networks.get("audio") or published.CONFIG.diffuser.networks["audio"]

        encoders = PromptEncoders(
            text=part("prompt_encoders.text", ManagedTextEncoder),
            image=part("prompt_encoders.image", ManagedImageEncoder),
            audio=part("prompt_encoders.audio", ManagedAudioEncoder),
            words=known_words(config),
        )
        vaes = (
            part("autoencoders.image", ImageVae),
            part("autoencoders.audio", ManagedAudioVae, multiple_of(audio_network)),
            part("autoencoders.text", ManagedTextVae),
        )
        wanted = {"image": image_and_video, "audio": audio, "text": text}
        networks = tuple(name for name in wanted if wanted[name] and f"diffuser.{name}" in parts)
        lacking = set(_diffuser_parts(_with_scales(found, networks))) - parts
        if not networks or lacking:
            return io.NodeOutput(ExecutionBlocker(_no_model(checkpoint, parts, lacking)), encoders, *vaes)
        try:
            model = load_diffuser(source, networks, checkpoint=found)
        except ValueError as error:
            raise ValueError(f"checkpoint: {error}") from error
        Autoencoders(*vaes).attach(model)
        return io.NodeOutput(model, encoders, *vaes)


def _no_model(checkpoint: str, parts: frozenset[str], lacking: set[str]) -> str:
    """The message of nodes that use the missing MODEL."""
    if not lacking and any(part.startswith("diffuser.") for part in parts):
        return "model: all diffusion networks are switched off in CoDi Load Model; switch on those that you need."
    what = f"lacks {', '.join(sorted(lacking))}" if lacking else "holds no diffusion network"
    return (
        f"model: {checkpoint} {what}; put all files of the model into a subfolder of "
        f"models/{FOLDER} and choose that folder in CoDi Load Model."
    )
