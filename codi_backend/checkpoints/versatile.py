"""Versatile Diffusion's published checkpoints: configuration, files, and their names for our parameters.

There are two layouts of the same tensors. The older one uses the names of CoDi's files. The newer one numbers the
layers of the networks in the order in which they run, and holds CLIP twice. The autoencoders and CLIP also have
separate files (SPEC_VD section 1).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Mapping

from torch import Tensor

from ..config import CoDiConfig
from ..config.published import VERSATILE_DIFFUSION as CONFIG
from ..models.diffuser.block_order import block_order
from . import autoencoder_names
from . import encoder_names as prompt_names
from .parts import FIELDS, TIME

SYSTEM = "Versatile Diffusion"
EDITION = "published Versatile Diffusion"


FOUR_FLOW, IMAGE_VAE, TEXT_VAE = "vd-four-flow-v1-0.pth", "kl-f8.pth", "optimus-vae.pth"
FILES = {
    "diffuser.image": FOUR_FLOW,
    "diffuser.text": FOUR_FLOW,
    "contexts.text": FOUR_FLOW,
    "contexts.image": FOUR_FLOW,
    TIME: FOUR_FLOW,
    "prompt_encoders.text": FOUR_FLOW,
    "prompt_encoders.image": FOUR_FLOW,
    "autoencoders.text": TEXT_VAE,
    "autoencoders.image": IMAGE_VAE,
}

# Prefix of a key, the part that it belongs to, and its rank: of several copies of a tensor, the highest is used.
_TRANSFORMER = r"(?=\S+\.(?:norm|proj_in|proj_out|transformer_blocks)\.)"
_PLACES = [
    (re.compile(pattern), part, rank)
    for pattern, part, rank in (
        (r"diffuser\.image\.time_embed\.", TIME, 2),
        (r"diffuser\.(image|text)\.data_blocks\.", r"diffuser.\1", 2),
        (r"diffuser\.(image|text)\.context_blocks\.", r"contexts.\1", 2),
        (r"ctx\.text\.model\.(?=text_)", "prompt_encoders.text", 2),
        (r"ctx\.image\.model\.(?!text_)", "prompt_encoders.image", 2),
        (r"ctx\.image\.model\.(?=text_)", "prompt_encoders.text", 1),
        (r"ctx\.text\.model\.(?!text_)", "prompt_encoders.image", 1),
        (r"vae\.(image|text)\.", r"autoencoders.\1", 2),
        (r"model\.diffusion_model\.time_embed\.", TIME, 2),
        (rf"model\.diffusion_model\.unet_(image|text)\.{_TRANSFORMER}", r"contexts.\1", 2),
        (r"model\.diffusion_model\.unet_(image|text)\.", r"diffuser.\1", 2),
        (r"clip\.model\.(?=text_)", "prompt_encoders.text", 2),
        (r"clip\.model\.", "prompt_encoders.image", 2),
        (r"optimus\.", "autoencoders.text", 2),
        (r"autokl\.", "autoencoders.image", 2),
        (r"(?=text_(model|projection)\.)", "prompt_encoders.text", 0),
        (r"(?=vision_model\.|visual_projection\.|logit_scale$)", "prompt_encoders.image", 0),
        (r"(?=encoder\.(embeddings|encoder|pooler|linear)\.|decoder\.(transformer|lm_head)\.)", "autoencoders.text", 0),
        (
            r"(?=(encoder|decoder)\.(conv_in|conv_out|norm_out|down|up|mid)\.|(post_)?quant_conv\.)",
            "autoencoders.image",
            0,
        ),
    )
]
_NEW = re.compile(r"diffuser\.|ctx\.|vae\.")
_OLD = re.compile(r"model\.diffusion_model\.time_embed\.")


def part_of(key: str) -> str | None:
    """The part that a published key of any layout belongs to; None for the schedule and unknown tensors."""
    place = _place(key)
    return place and place[0]


def layout_of(key: str) -> str | None:
    """The layout, "new" or "old", of a key that occurs in one layout of Versatile Diffusion only; otherwise None."""
    return "new" if _NEW.match(key) else "old" if _OLD.match(key) else None


def from_published(part: str, state: Mapping[str, Tensor], config: CoDiConfig) -> dict[str, Tensor]:
    """Convert the tensors of a part from their full published keys to our state dict. Constants are left out.

    One of several copies of a tensor is used; the others keep their published keys, for reports.
    """
    places = {key: _place(key) for key in state}
    chosen: dict[str, str] = {}
    for key in sorted(state, key=lambda key: places[key][2]):
        chosen[_short(part, places[key][1], config)] = key
    named = {name: state[key] for name, key in chosen.items()}
    taken = set(chosen.values())
    copies = {key: value for key, value in state.items() if key not in taken}
    if part.startswith("prompt_encoders."):
        ours = {prompt_names.from_reference(f"clip.model.{name}"): value for name, value in named.items()}
        named = {name[1]: value for name, value in ours.items() if name is not None}
    elif part.startswith("autoencoders."):
        named = autoencoder_names.from_reference(getattr(config, FIELDS[part]), named)
    return named | copies


def to_published(part: str, state: Mapping[str, Tensor], config: CoDiConfig) -> dict[str, Tensor]:
    """Convert a part's state dict to the full published keys of the new layout, with the constants of a file.

    Each CLIP tower is written into both copies of CLIP.
    """
    group, name = part.split(".")
    if part == TIME:
        return {f"diffuser.image.time_embed.{key}": value for key, value in state.items()}
    if group == "contexts":
        return {f"diffuser.{name}.context_blocks.{key.replace('.', '.0.', 1)}": v for key, v in state.items()}
    if group == "diffuser":
        numbers = {place: i for i, place in enumerate(block_order(config.diffuser.networks[name]).data)}
        return {f"diffuser.{name}.data_blocks.{_numbered(key, numbers)}": value for key, value in state.items()}
    field = getattr(config, FIELDS[part])
    if group == "autoencoders":
        return {f"vae.{name}.{key}": value for key, value in autoencoder_names.to_reference(field, state).items()}
    clip = {prompt_names.to_reference(name, key): value for key, value in state.items()}
    clip |= prompt_names.published_buffers(field, next(iter(state.values())).device)
    return {f"ctx.{kind}.{key.removeprefix('clip.')}": v for kind in ("text", "image") for key, v in clip.items()}


def edition(config: CoDiConfig) -> str:
    """Name of the edition that a configuration belongs to."""
    return EDITION


def configure(shapes: Mapping[str, Mapping[str, Collection[int]]], base: CoDiConfig = CONFIG) -> CoDiConfig:
    """The published model's configuration, reduced to the parts that are present; see `codi.configure`.

    If there are networks without shared layers, or the reverse, the configuration names all of the absent kind, so that
    the model does not look like one without shared layers.
    """
    names = list(base.diffuser.networks), list(base.diffuser.contexts)
    networks = [name for name in names[0] if f"diffuser.{name}" in shapes]
    kinds = [kind for kind in names[1] if f"contexts.{kind}" in shapes]
    if networks or kinds or TIME in shapes:
        networks, kinds = networks or names[0], kinds or names[1]
    absent = {field: None for part, field in FIELDS.items() if part not in shapes}
    return dataclasses.replace(base, diffuser=base.diffuser.only(networks, kinds), **absent)


def _place(key: str) -> tuple[str, str, int] | None:
    """Part, remainder after the prefix, and rank of a published key."""
    for pattern, part, rank in _PLACES:
        if match := pattern.match(key):
            return match.expand(part), key[match.end() :], rank
    return None


def _short(part: str, rest: str, config: CoDiConfig) -> str:
    """A tensor's name within its part, common to both layouts: our name for networks, else the published one."""
    group, name = part.split(".")
    if part == TIME or group not in ("diffuser", "contexts"):
        return rest
    # All networks of a model have the shared layers in the same places.
    network = config.diffuser.networks.get(name) or next(iter(config.diffuser.networks.values()))
    order = block_order(network)
    places = order.data if group == "diffuser" else order.shared
    if number := re.match(r"(\d+)\.0\.", rest):  # the new layout
        within = rest[number.end() :]
        if group == "contexts":
            return f"{number[1]}.{within}"
        return f"{places[int(number[1])]}.{within}" if int(number[1]) < len(places) else rest
    if group == "contexts":
        return _numbered(rest, {place: i for i, place in enumerate(places)}, "")
    return rest


def _numbered(key: str, numbers: Mapping[str, int], single: str = "0.") -> str:
    """Replace a layer's place in a name by its number; `single` is put after the number."""
    depth = 1 if key.startswith("out.") else 2 if key.startswith("middle_block.") else 3
    parts = key.split(".")
    place = ".".join(parts[:depth])
    return f"{numbers[place]}.{single}{'.'.join(parts[depth:])}" if place in numbers else key
