"""Translation between our and the published parameter names of the prompt encoders (SPEC sections 0, 3.1 and 3.2).

Encoders are named as in `CoDi.prompt_encoders`: "text", "image" (which also encodes videos) and "audio". Published
keys are those of the whole model, for example ``clip.model.visual_projection.weight``.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor

from ..config import ClapConfig, TextEncoderConfig, VisionEncoderConfig
from ..models.encoders.audio import shift_mask, window_and_shift, window_index

_PREFIX = {"text": "clip.model.", "image": "clip.model.", "audio": "clap.model."}

# Pairs of patterns and replacements, one table per direction.
_TO_REFERENCE = {
    "text": [
        (r"^layers\.(\d+)\.(q|k|v|out)_proj\.", r"layers.\1.self_attn.\2_proj."),
        (r"^layers\.(\d+)\.fc", r"layers.\1.mlp.fc"),
        (r"^layers\.", "text_model.encoder.layers."),
        (r"^(token_embedding|token_projection|position_embedding)\.", r"text_model.embeddings.\1."),
        (r"^final_layer_norm\.", "text_model.final_layer_norm."),
    ],
    "image": [
        (r"^layers\.(\d+)\.(q|k|v|out)_proj\.", r"layers.\1.self_attn.\2_proj."),
        (r"^layers\.(\d+)\.fc", r"layers.\1.mlp.fc"),
        (r"^layers\.(\d+)\.temporal\.", r"layers.\1.temporal_self_attn."),
        (r"^layers\.", "vision_model.encoder.layers."),
        (r"^(class|patch|position)_embedding\.", r"vision_model.embeddings.\1_embedding."),
        (r"^pre_layer_norm\.", "vision_model.pre_layrnorm."),  # the published spelling
        (r"^post_layer_norm\.", "vision_model.post_layernorm."),
        (r"(class_embedding|logit_scale|pos_embeds|frame_rate_embeds)\.weight$", r"\1"),
        (r"\.(temporal_attn\.norm|ff\.proj_out\.0)\.weight$", r".\1.g"),
    ],
    "audio": [
        (r"^unused\.transform_in\.", "audio_transform.sequential.0."),
        (r"^unused\.transform_out\.", "audio_transform.sequential.3."),
        (r"^unused\.", "audio_branch."),
        (r"^band_norm\.gain\.weight$", "audio_branch.bn0.weight"),
        (r"^band_norm\.offset\.weight$", "audio_branch.bn0.bias"),
        (r"^band_norm\.mean\.weight$", "audio_branch.bn0.running_mean"),
        (r"^band_norm\.variance\.weight$", "audio_branch.bn0.running_var"),
        (r"^patch_embedding\.", "audio_branch.patch_embed."),
        (r"^(layers|norm)\.", r"audio_branch.\1."),
        (r"\.(fc1|fc2)\.", r".mlp.\1."),
        (r"(relative_position_bias_table)\.weight$", r"\1"),
    ],
}
_FROM_REFERENCE = {
    "text": [
        (r"^text_model\.(embeddings\.|encoder\.)?", ""),
        (r"^(layers\.\d+\.)(self_attn|mlp)\.", r"\1"),
    ],
    "image": [
        (r"^vision_model\.(embeddings\.|encoder\.)?", ""),
        (r"^(layers\.\d+\.)(self_attn|mlp)\.", r"\1"),
        (r"^(layers\.\d+\.)temporal_self_attn\.", r"\1temporal."),
        (r"^pre_layrnorm\.", "pre_layer_norm."),
        (r"^post_layernorm\.", "post_layer_norm."),
        (r"(class_embedding|logit_scale|pos_embeds|frame_rate_embeds)$", r"\1.weight"),
        (r"\.(temporal_attn\.norm|ff\.proj_out\.0)\.g$", r".\1.weight"),
    ],
    "audio": [
        (r"^audio_transform\.sequential\.0\.", "unused.transform_in."),
        (r"^audio_transform\.sequential\.3\.", "unused.transform_out."),
        (r"^audio_branch\.(head|tscam_conv)\.", r"unused.\1."),
        (r"^audio_branch\.bn0\.weight$", "band_norm.gain.weight"),
        (r"^audio_branch\.bn0\.bias$", "band_norm.offset.weight"),
        (r"^audio_branch\.bn0\.running_mean$", "band_norm.mean.weight"),
        (r"^audio_branch\.bn0\.running_var$", "band_norm.variance.weight"),
        (r"^audio_branch\.patch_embed\.", "patch_embedding."),
        (r"^audio_branch\.", ""),
        (r"\.mlp\.", "."),
        (r"(relative_position_bias_table)$", r"\1.weight"),
    ],
}
# Constants, and (second line) buffers that the original makes on first use.
_BUFFERS = re.compile(
    r"\.(position_ids|num_batches_tracked|relative_position_index|attn_mask)$"
    r"|\.(spectrogram_extractor|logmel_extractor)\."
)


def to_reference(encoder: str, key: str) -> str:
    """Published key of one of an encoder's parameters."""
    return _PREFIX[encoder] + _rename(key, _TO_REFERENCE[encoder])


def from_reference(key: str) -> tuple[str, str] | None:
    """Encoder and our parameter name of a published key; None for buffers and for keys of other parts."""
    if not key.startswith(("clip.model.", "clap.model.")) or _BUFFERS.search(key):
        return None
    if key.startswith("clap."):
        encoder = "audio"
    else:
        encoder = "text" if key.startswith("clip.model.text_") else "image"
    return encoder, _rename(key.removeprefix(_PREFIX[encoder]), _FROM_REFERENCE[encoder])


def published_buffers(
    config: TextEncoderConfig | VisionEncoderConfig | ClapConfig, device: torch.device | str | None = None
) -> dict[str, Tensor]:
    """Constants that a published file holds beside an encoder's parameters, by published key.

    Our encoders compute them; published files include them.
    """
    if isinstance(config, TextEncoderConfig):
        return {"clip.model.text_model.embeddings.position_ids": torch.arange(config.positions, device=device)[None]}
    if isinstance(config, VisionEncoderConfig):
        tokens = (config.image_size // config.patch) ** 2 + 1
        return {"clip.model.vision_model.embeddings.position_ids": torch.arange(tokens, device=device)[None]}
    buffers = {"bn0.num_batches_tracked": torch.zeros((), dtype=torch.int64, device=device)}
    for stage, depth in enumerate(config.depths):
        window, shift = window_and_shift(config, stage)
        size = config.image_size // config.patch // 2**stage
        for block in range(depth):
            buffers[f"layers.{stage}.blocks.{block}.attn.relative_position_index"] = window_index(window, device)
            if shift and block % 2:
                buffers[f"layers.{stage}.blocks.{block}.attn_mask"] = shift_mask(size, window, shift, device)
    return {f"clap.model.audio_branch.{key}": value for key, value in buffers.items()}


def _rename(key: str, rules: list[tuple[str, str]]) -> str:
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key
