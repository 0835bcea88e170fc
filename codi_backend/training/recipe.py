"""The recipe of the built-in models: every training stage from nothing, with its phases, in order.

The shipped weights stay as they are: an earlier, longer recipe trained them, and the records inside them (`codi
inspect`) have its stage names. Each network sees about as many samples here as it saw there.

Batch sizes are for a GPU. On a CPU give ``--batch-size 32`` or so; a smaller ``--steps`` shortens every phase.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..config import CoDiConfig
from ..modalities import MODALITIES, modality
from .loop import Options

Changes = Mapping[str, Mapping[str, Any]]
"""What differs from the recipe, by stage or phase: fields of `Options`, ``prompts``, and ``sources``."""
_LISTS = ("prompts", "sources")

VERSATILE = "versatile"
"""The stage of the other built-in model, Versatile Diffusion, which has a run folder of its own."""

SCENES = 16_000
"""Training scenes whose latents are stored; see `latents.TIMES`."""


@dataclass(frozen=True)
class Phase:
    """One training run inside a stage.

    Attributes
    ----------
    training : str
        The kind of training: autoencoder, vocoder, text_encoder, bridging, diffuser, environment, alignment,
        distillation, or versatile.
    streams : tuple of str
        The modalities that are trained. For alignment they are a pair, for distillation the target and the source.
    options : Options
    prompts : tuple of str
        Modalities of the prompts that condition the diffuser.
    other_pairs : tuple of (str, str)
        Pairs that take turns with `streams`, in alignment and distillation.
    turns : str
        For Versatile Diffusion, the order of its flows: a key of `versatile.TURNS`.
    """

    training: str
    streams: tuple[str, ...]
    options: Options
    prompts: tuple[str, ...] = ("text",)
    other_pairs: tuple[tuple[str, str], ...] = ()
    turns: str = ""

    def of(self, config: CoDiConfig) -> Phase | None:
        """The phase without what a model does not have, or None if nothing is left to train.

        `ValueError` if the model has no encoder for any of the prompts.
        """
        first, video = (
            self.streams[0],
            "image" in config.diffuser.networks and config.diffuser.networks["image"].temporal,
        )
        if self.training == "versatile":
            return self
        if self.training == "autoencoder":
            return None if getattr(config, f"{first}_autoencoder") is None else self
        if self.training == "vocoder":
            return self if config.audio_autoencoder and config.audio_autoencoder.vocoder else None
        has = {name for name, row in MODALITIES.items() if row.network in config.diffuser.networks}
        has -= set() if video else {"video"}
        encoders = {name for name in has if getattr(config, f"{modality(name).network}_encoder")} | {"text"}
        if self.training == "bridging":
            return self if first in encoders else None
        if self.training == "text_encoder":
            streams = tuple(name for name in self.streams if name in has)
            return dataclasses.replace(self, streams=streams) if streams and config.text_encoder else None
        if self.training != "diffuser":
            has = {name for name in has if config.diffuser.networks[modality(name).network].aligned}
        pairs = [pair for pair in (self.streams, *self.other_pairs) if has >= set(pair)]
        if not pairs or first not in has or (self.training != "distillation" and self.streams != pairs[0]):
            return None
        prompts = tuple(name for name in self.prompts if name in encoders)
        if not prompts:
            raise ValueError(f"The model has no encoder for prompts of {' and '.join(self.prompts)}: name others.")
        return dataclasses.replace(self, streams=pairs[0], other_pairs=tuple(pairs[1:]), prompts=prompts)

    def changed(self, changes: Mapping[str, Any]) -> Phase:
        """The phase with other options, and other prompts and sources if they are among them.

        ``sources`` are the source streams of a distillation, whose target stays.
        """
        options = {name: value for name, value in changes.items() if name not in _LISTS}
        changed = dataclasses.replace(self, options=dataclasses.replace(self.options, **options))
        if "prompts" in changes:
            changed = dataclasses.replace(changed, prompts=tuple(changes["prompts"]))
        if "sources" in changes:
            first, *others = [(self.streams[0], source) for source in changes["sources"]]
            changed = dataclasses.replace(changed, streams=first, other_pairs=tuple(others))
        return changed


RECIPE: dict[str, Phase | dict[str, Phase]] = {
    # Autoencoders.
    "autoencoder_image": Phase("autoencoder", ("image",), Options(2500, 16, learning_rate=1.5e-3)),
    "autoencoder_audio": Phase("autoencoder", ("audio",), Options(1000, 16, learning_rate=1.5e-3)),
    "vocoder": Phase("vocoder", ("audio",), Options(20_000, 16, learning_rate=5e-4)),
    "autoencoder_text": Phase("autoencoder", ("text",), Options(3000, 64)),
    # Prompt encoders. Image and audio never occur as a pair: text is the bridge between them.
    "text_encoder": Phase("text_encoder", ("image", "audio"), Options(2000, 256)),
    "bridging_image": {
        "image": Phase("bridging", ("image",), Options(1500, 64)),
        "video": Phase("bridging", ("video",), Options(600, 16, warmup=50)),
    },
    "bridging_audio": Phase("bridging", ("audio",), Options(900, 64)),
    # Diffusers. The video stage trains temporal blocks inside the image network.
    "diffuser_image": Phase("diffuser", ("image",), Options(5800, 512)),
    "diffuser_audio": Phase("diffuser", ("audio",), Options(7000, 32), prompts=("text", "audio", "video")),
    "diffuser_text": Phase("diffuser", ("text",), Options(5500, 128), prompts=("text", "image", "audio", "video")),
    "diffuser_video": Phase("diffuser", ("video",), Options(8600, 64)),
    # Latent alignment: environment encoders, then pairs of streams in the paper's order, with earlier pairs replayed.
    "environment": {
        "image": Phase("environment", ("image",), Options(740, 512, warmup=50)),
        "text": Phase("environment", ("text",), Options(750, 512, warmup=50)),
        "audio": Phase("environment", ("audio",), Options(3000, 64)),
        "video+audio": Phase("environment", ("video", "audio"), Options(1600, 128, warmup=50)),
    },
    "alignment": {
        "image-text": Phase("alignment", ("image", "text"), Options(600, 32, learning_rate=1.5e-3, warmup=50)),
        "text-audio": Phase(
            "alignment",
            ("text", "audio"),
            Options(800, 32, learning_rate=1.5e-3, warmup=50),
            other_pairs=(("image", "text"),),
        ),
        "audio-video": Phase(
            "alignment",
            ("audio", "video"),
            Options(450, 8, learning_rate=1.5e-3, warmup=50),
            other_pairs=(("image", "text"), ("text", "audio")),
        ),
    },
    # Connectors of one network each, by distillation; pairs of a target stream and a source stream.
    "distillation_image": Phase("distillation", ("image", "text"), Options(4450, 64)),
    "distillation_audio": Phase(
        "distillation", ("audio", "text"), Options(2800, 128), other_pairs=(("audio", "video"),)
    ),
    "distillation_text": Phase("distillation", ("text", "image"), Options(1650, 256), other_pairs=(("text", "audio"),)),
    "distillation_video": Phase(
        "distillation", ("video", "audio"), Options(6200, 64), other_pairs=(("image", "text"),)
    ),
    # Versatile Diffusion, on the encoders and autoencoders of the shipped small CoDi. The second phase has more batches
    # with two contexts, and interpolation keeps what it would lose of image to image.
    VERSATILE: {
        "flows": Phase("versatile", ("image", "text"), Options(6600, 48), turns="flows"),
        "dual_guidance": Phase(
            "versatile",
            ("image", "text"),
            Options(1200, 48, warmup=50, weight_interpolation=0.5),
            turns="dual_guidance",
        ),
    },
}
STAGES = tuple(name for name in RECIPE if name != VERSATILE)
"""The stages of the small CoDi, in order."""


def phases(stage: str) -> dict[str, Phase]:
    """The phases of a stage by the names of their records and folders: ``<stage>``, or ``<stage>/<phase>``.

    `ValueError` for a name that is not in `RECIPE`.
    """
    if stage not in RECIPE:
        raise ValueError(f"There is no stage {stage!r}; choose from {', '.join(RECIPE)}.")
    row = RECIPE[stage]
    return {stage: row} if isinstance(row, Phase) else {f"{stage}/{name}": phase for name, phase in row.items()}


def check_changes(changes: Changes) -> None:
    """`ValueError` with a sentence for a stage, an option or a value that is not possible."""
    known = {field.name: type(getattr(Options(1, 1), field.name)) for field in dataclasses.fields(Options)}
    names = {name for stage in RECIPE for name in (stage, *phases(stage))}
    for name, options in changes.items():
        if name not in names:
            raise ValueError(f"There is no stage or phase {name!r}; choose from {', '.join(sorted(names))}.")
        if not isinstance(options, Mapping):
            raise ValueError(f'The options of {name} must be an object, as {{"steps": 1000}}.')
        for option, value in options.items():
            if option in _LISTS:
                _check_list(name, option, value)
            elif option not in known:
                every = ", ".join((*known, *_LISTS))
                raise ValueError(f"{name} has no option {option!r}; choose from {every}.")
            elif isinstance(value, bool) or not isinstance(value, (int, known[option])):
                raise ValueError(f"{option} of {name} is {value!r}: give a number.")
        for phase in phases(name.partition("/")[0]).values():
            phase.changed(options)


def _check_list(name: str, option: str, value: Any) -> None:
    every = phases(name.partition("/")[0]).values()
    if option == "sources" and any(phase.training != "distillation" for phase in every):
        raise ValueError(f"{name} has no sources: stages of distillation have them.")
    targets = {phase.streams[0] for phase in every} if option == "sources" else set()
    possible = [modality for modality in MODALITIES if modality not in targets]
    if not isinstance(value, list) or not value or not all(one in possible for one in value):
        raise ValueError(f"The {option} of {name} must be a list of {', '.join(possible)}.")
