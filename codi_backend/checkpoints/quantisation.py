"""Weights in 8 bits with a scale per tensor, in the format of ComfyUI's quantised checkpoints.

A quantised layer has three tensors beside its bias: ``weight`` (float8_e4m3fn or int8), ``weight_scale`` (a
single-precision scalar) and ``comfy_quant`` (JSON as bytes, which names the format). The weight is
``weight * weight_scale``. ComfyUI's mixed precision operations read and write the same tensors.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .tensor_file import streamed

State = dict[str, Tensor]

SCALE, RECORD = "weight_scale", "comfy_quant"
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
# Floating-point type of the tensors that are not quantised.
PLAIN = torch.float16

# First and last layers of networks, the time embedding, and the small networks of position biases.
_KEPT = re.compile(
    r"(time_embed|input_blocks\.0|out|environment_encoder\.(0|\d+\.2)|token_projection|text_projection"
    r"|patch_embedding|visual_projection|audio_projection)(\..*)?|.*rel_pos_bias.*"
)
_GROUPS = ("diffuser.", "contexts.", "prompt_encoders.")


@dataclass(frozen=True)
class Format:
    """A format of quantised weights.

    Attributes
    ----------
    name : str
        ComfyUI's name of it.
    dtype : torch.dtype
    largest : float
        Magnitude that the largest weight of a tensor is mapped to.
    """

    name: str
    dtype: torch.dtype
    largest: float

    def quantise(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """A weight of any shape and its scale, a single-precision scalar."""
        weight = weight.float()
        scale = (weight.abs().amax() / self.largest).clamp_min(1e-30)
        values = (weight / scale).clamp(-self.largest, self.largest)
        return (values if self.dtype.is_floating_point else values.round()).to(self.dtype), scale

    def record(self) -> Tensor:
        """The tensor `comfy_quant`, which asks ComfyUI not to quantise the inputs of the layer."""
        text = json.dumps({"format": self.name, "full_precision_matrix_mult": True})
        return torch.tensor(list(text.encode()), dtype=torch.uint8)


FORMATS = {
    "fp8": Format("float8_e4m3fn", torch.float8_e4m3fn, 448.0),
    "int8": Format("int8_tensorwise", torch.int8, 127.0),
}
_AGAIN = "it is damaged; fetch or convert it again"
_BY_NAME = {form.name: form for form in FORMATS.values()}


def quantisable_layers(part: str, network: nn.Module) -> set[str]:
    """Names of the layers of a part whose weights `quantise` brings to 8 bits.

    These are the linear and convolutional layers of diffusers and prompt encoders, without their first and last layers
    and their time embedding. Autoencoders have none: errors in them are visible and audible at once.
    """
    if not part.startswith(_GROUPS) or part == "diffuser.time":
        return set()
    return {name for name, layer in network.named_modules() if isinstance(layer, LAYERS) and not _KEPT.fullmatch(name)}


def quantise(state: Mapping[str, Tensor], layers: Collection[str], form: Format) -> State:
    """Quantise the weights of some layers of a state dict; other floating-point tensors become half precision."""
    quantised: State = {}
    for key, value in streamed(state):
        layer, _, name = key.rpartition(".")
        if name == "weight" and layer in layers:
            quantised[key], quantised[f"{layer}.{SCALE}"] = form.quantise(value)
            quantised[f"{layer}.{RECORD}"] = form.record()
        else:
            quantised[key] = value.to(PLAIN) if value.is_floating_point() else value.clone()
    return quantised


def quantised_layers(keys: Iterable[str]) -> list[str]:
    """Names of the quantised layers of a state dict."""
    return [key.removesuffix(f".{RECORD}") for key in keys if key.endswith(f".{RECORD}")]


def quantised_keys(keys: Iterable[str]) -> set[str]:
    """Keys of the tensors that make up quantised weights."""
    return {f"{layer}.{name}" for layer in quantised_layers(keys) for name in ("weight", SCALE, RECORD)}


def added_keys(keys: Iterable[str]) -> set[str]:
    """Keys that quantised layers have and plain ones do not: scales and records."""
    return {f"{layer}.{name}" for layer in quantised_layers(keys) for name in (SCALE, RECORD)}


def shadows(state: Mapping[str, Tensor]) -> State:
    """Meta tensors in place of those of a state dict, except for scales and records, which are small."""
    small = added_keys(state)
    return {key: value if key in small else value.to("meta") for key, value in state.items()}


def check_quantised(state: Mapping[str, Tensor], part: str, holder: str) -> set[str]:
    """Check the quantised layers of a part, and return the keys that they add to those of plain layers.

    Raises
    ------
    ValueError
        For another format, or a scale that is missing or not a positive number; the message begins with `holder`.
    """
    for layer in quantised_layers(state):
        where = f"{holder} holds {layer} of {part}"
        try:
            form = read_format(state[f"{layer}.{RECORD}"])
        except ValueError as error:
            raise ValueError(f"{where} {error}") from error
        weight, scale = state.get(f"{layer}.weight"), state.get(f"{layer}.{SCALE}")
        if weight is None or scale is None:
            lacking = "weight" if weight is None else "scale"
            raise ValueError(f"{where} as {form.name} without its {lacking}: {_AGAIN}.")
        if weight.dtype != form.dtype:
            stored = str(weight.dtype).removeprefix("torch.")
            raise ValueError(f"{where} as {form.name}, but its weight is of {stored}: {_AGAIN}.")
        if scale.numel() != 1:
            raise ValueError(
                f"{where} with {scale.numel()} scales, and one is read here: make the file with codi convert."
            )
        if not (math.isfinite(float(scale)) and float(scale) > 0):
            raise ValueError(f"{where} with the scale {float(scale):g}, which must be a positive number: {_AGAIN}.")
    return added_keys(state)


def read_format(record: Tensor) -> Format:
    """The format that a tensor `comfy_quant` names; `ValueError` with the end of a sentence for others."""
    try:
        settings = json.loads(bytes(record.tolist()))
        name = settings["format"]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"with a damaged {RECORD}: fetch or convert it again.") from error
    if name not in _BY_NAME or settings.get("convrot"):
        raise ValueError(
            f"quantised as {name}, which is not read here: get it in fp8 or int8 as codi convert writes them, "
            "or in fp16, bf16 or fp32."
        )
    return _BY_NAME[name]


def dequantised(state: Mapping[str, Tensor]) -> State:
    """A state dict without quantised layers: their weights are multiplied by their scales, in single precision."""
    layers = set(quantised_layers(state))
    plain: State = {}
    for key, value in state.items():
        layer, _, name = key.rpartition(".")
        if layer not in layers or name not in ("weight", SCALE, RECORD):
            plain[key] = value
        elif name == "weight":
            plain[key] = value.float() * state[f"{layer}.{SCALE}"].float()
    return plain
