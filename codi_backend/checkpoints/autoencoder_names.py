"""Translation between our and the published parameter names of the autoencoders (SPEC sections 0 and 5)."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from ..config import AudioAutoencoderConfig, ImageAutoencoderConfig, TextAutoencoderConfig

Config = ImageAutoencoderConfig | AudioAutoencoderConfig | TextAutoencoderConfig

# (ours, published) parts of names, which begin the name or follow a dot; # stands for a number.
_VAE = (
    ("down_blocks.#.resnets.#.", "down.#.block.#."),
    ("down_blocks.#.downsamplers.0.", "down.#.downsample."),
    ("up_blocks.#.resnets.#.", "up.#.block.#."),
    ("up_blocks.#.upsamplers.0.", "up.#.upsample."),
    ("mid_block.resnets.0.", "mid.block_1."),
    ("mid_block.resnets.1.", "mid.block_2."),
    ("mid_block.attentions.0.group_norm.", "mid.attn_1.norm."),
    ("mid_block.attentions.0.to_q.", "mid.attn_1.q."),
    ("mid_block.attentions.0.to_k.", "mid.attn_1.k."),
    ("mid_block.attentions.0.to_v.", "mid.attn_1.v."),
    ("mid_block.attentions.0.to_out.0.", "mid.attn_1.proj_out."),
    ("conv_shortcut.", "nin_shortcut."),
    ("conv_norm_out.", "norm_out."),
)
_TEXT = (
    ("encoder.token_embedding.", "encoder.embeddings.word_embeddings."),
    ("encoder.position_embedding.", "encoder.embeddings.position_embeddings."),
    ("encoder.type_embedding.", "encoder.embeddings.token_type_embeddings."),
    ("encoder.embedding_norm.", "encoder.embeddings.LayerNorm."),
    ("encoder.layers.#.query.", "encoder.encoder.layer.#.attention.self.query."),
    ("encoder.layers.#.key.", "encoder.encoder.layer.#.attention.self.key."),
    ("encoder.layers.#.value.", "encoder.encoder.layer.#.attention.self.value."),
    ("encoder.layers.#.out.", "encoder.encoder.layer.#.attention.output.dense."),
    ("encoder.layers.#.attention_norm.", "encoder.encoder.layer.#.attention.output.LayerNorm."),
    ("encoder.layers.#.fc1.", "encoder.encoder.layer.#.intermediate.dense."),
    ("encoder.layers.#.fc2.", "encoder.encoder.layer.#.output.dense."),
    ("encoder.layers.#.output_norm.", "encoder.encoder.layer.#.output.LayerNorm."),
    ("encoder.pooler.", "encoder.pooler.dense."),
    ("encoder.posterior.", "encoder.linear."),
    ("decoder.token_embedding.", "decoder.transformer.wte."),
    ("decoder.position_embedding.", "decoder.transformer.wpe."),
    ("decoder.layers.#.attention_norm.", "decoder.transformer.h.#.ln_1."),
    ("decoder.layers.#.qkv.", "decoder.transformer.h.#.attn.c_attn."),
    ("decoder.layers.#.out.", "decoder.transformer.h.#.attn.c_proj."),
    ("decoder.layers.#.mlp_norm.", "decoder.transformer.h.#.ln_2."),
    ("decoder.layers.#.fc1.", "decoder.transformer.h.#.mlp.c_fc."),
    ("decoder.layers.#.fc2.", "decoder.transformer.h.#.mlp.c_proj."),
    ("decoder.final_norm.", "decoder.transformer.ln_f."),
    ("decoder.memory.", "decoder.transformer.linear."),
    ("decoder.latent_embedding.", "decoder.transformer.linear_emb."),
)
_TIED, _TOKENS = "decoder.lm_head.weight", "decoder.transformer.wte.weight"
_CONSTANT = re.compile(r"^fn_STFT\.|^decoder\.transformer\.h\.\d+\.attn\.bias$")
# Linear layers that are published as 1x1 convolutions, and those that are published transposed.
_POINTWISE = re.compile(r"\.mid\.attn_1\.(q|k|v|proj_out)\.weight$")
_TRANSPOSED = re.compile(r"^decoder\.transformer\.h\.\d+\.(attn|mlp)\.c_\w+\.weight$")


def to_reference(config: Config, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the state dict of an autoencoder to the published names, without `autokl.`, `audioldm.` or `optimus.`.

    The constants `fn_STFT.*` of the published audio autoencoder are left out.
    """
    text = isinstance(config, TextAutoencoderConfig)
    published = {}
    for key, value in state.items():
        if text:
            name = _translate(key, _TEXT)
        else:
            name = _flip_levels(_translate(key.removeprefix("vae."), _VAE), len(config.channels))
        if _POINTWISE.search(name):
            value = value[:, :, None, None]
        elif _TRANSPOSED.search(name):
            value = value.T.contiguous()
        published[name] = value
    if text:
        published[_TIED] = published[_TOKENS]
        size = config.decoder.positions
        mask = torch.ones(size, size, device=published[_TOKENS].device).tril()[None, None]
        for layer in range(config.decoder.layers):
            published[f"decoder.transformer.h.{layer}.attn.bias"] = mask.clone()
    return published


def from_reference(config: Config, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a state dict with the published names, without `autokl.`, `audioldm.` or `optimus.`, to ours.

    Constants and the second copy of the decoder's token embedding are left out; unknown names are kept for reports.
    """
    ours = {}
    for key, value in state.items():
        if _CONSTANT.search(key) or (key == _TIED and _TOKENS in state):
            continue
        if isinstance(config, TextAutoencoderConfig):
            name = _translate(_TOKENS if key == _TIED else key, _TEXT, backwards=True)
        else:
            name = _translate(_flip_levels(key, len(config.channels)), _VAE, backwards=True)
            name = name if name.startswith("vocoder.") else f"vae.{name}"
        if _POINTWISE.search(key) and value.ndim == 4:
            value = value.flatten(1)
        elif _TRANSPOSED.search(key) and value.ndim == 2:
            value = value.T
        ours[name] = value
    return ours


def _translate(key: str, table: tuple[tuple[str, str], ...], backwards: bool = False) -> str:
    for pair in table:
        source, target = reversed(pair) if backwards else pair
        pattern = re.escape(source).replace(r"\#", r"(\d+)")
        for number in range(1, target.count("#") + 1):
            target = target.replace("#", rf"\{number}", 1)
        key = re.sub(rf"(?:^|(?<=\.)){pattern}", target, key)
    return key


def _flip_levels(key: str, levels: int) -> str:
    """The published decoder counts its levels from the finest, ours from the coarsest."""
    return re.sub(r"\bup\.(\d+)\.", lambda match: f"up.{levels - 1 - int(match[1])}.", key)
