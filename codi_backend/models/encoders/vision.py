"""The image and video prompt encoder: CLIP's vision transformer with temporal layers (SPEC section 3.1)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...checks.numbers import require_finite
from ...config import VisionEncoderConfig
from ..diffuser.temporal import ClampedNorm, PositionTable, RawParameter
from ..diffuser.temporal_position import RelativePositionBias
from ..layer_factory import LayerFactory


class ImageEncoder(nn.Module):
    """CLIP's vision transformer, pooled at the class token, projected and normalised.

    Videos share all layers with images; a temporal block in every layer adds attention among their frames.

    Parameters
    ----------
    config : VisionEncoderConfig
    operations : module or class
        Where layers come from: `torch.nn`, or one of ComfyUI's `comfy.ops`.
    dtype, device
        Of the parameters.
    """

    def __init__(self, config: VisionEncoderConfig, *, operations: Any = nn, dtype=None, device=None) -> None:
        super().__init__()
        self.config = config
        factory = LayerFactory(operations, dtype, device)
        place = {"dtype": dtype, "device": device}
        width = config.width
        self.class_embedding = RawParameter(width**-0.5 * torch.randn(width, **place))
        self.patch_embedding = operations.Conv2d(3, width, config.patch, stride=config.patch, bias=False, **place)
        self.position_embedding = operations.Embedding((config.image_size // config.patch) ** 2 + 1, width, **place)
        self.pre_layer_norm = factory.layer_norm(width)
        self.layers = nn.ModuleList([_Layer(config, factory) for _ in range(config.layers)])
        self.post_layer_norm = factory.layer_norm(width)
        self.visual_projection = factory.linear(width, config.embedding_dim, bias=False)
        # CLIP's temperature, which is in published files; embeddings do not depend on it.
        self.logit_scale = RawParameter(torch.full((), math.log(1 / 0.07), **place))

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode images or videos.

        Parameters
        ----------
        pixels : Tensor
            ``[B, 3, S, S]`` or ``[B, 3, T, S, S]`` from `preprocess.clip_pixels`, with S = `config.image_size`, in the
            dtype to compute in. A video of one frame is an image.

        Returns
        -------
        Tensor
            ``[B, 1, embedding_dim]``, each of length 1.

        Raises
        ------
        ValueError
            For another shape, no frames, values that are not finite, or a video without temporal layers.
        """
        self._check(pixels)
        frames = pixels.shape[2] if pixels.ndim == 5 else 1
        if pixels.ndim == 5:
            pixels = pixels.transpose(1, 2).flatten(0, 1)
        h = self._transform(self._embed(pixels), frames)
        pooled = self.post_layer_norm(h[:, 0].unflatten(0, (-1, frames)).mean(1))
        return F.normalize(self.visual_projection(pooled), dim=-1)[:, None]

    def all_tokens(self, pixels: Tensor, mask: Tensor | None = None) -> Tensor:
        """Encode images as the class token and one token per patch (SPEC_VD section 4).

        Parameters
        ----------
        pixels : Tensor
            ``[B, 3, S, S]``, as for `forward`.
        mask : Tensor, optional
            ``[B, 1, S, S]`` in 0..1; 1 for visible pixels. Tokens are weighted by the mask's mean over their patch (the
            class token: over the image), before the transformer and after it.

        Returns
        -------
        Tensor
            ``[B, 1 + N, embedding_dim]``, divided by the norm of the unmasked class token.
        """
        self._check(pixels)
        h = self._embed(pixels)
        if mask is not None:
            patches = F.avg_pool2d(mask.to(h), self.config.patch).flatten(1)
            visible = torch.cat([mask.to(h).mean((1, 2, 3))[:, None], patches], 1)[..., None]
            h = h * visible
        h = self.visual_projection(self.post_layer_norm(self._transform(h, frames=1)))
        h = h / h[:, :1].norm(dim=-1, keepdim=True)
        return h if mask is None else h * visible

    def _embed(self, pixels: Tensor) -> Tensor:
        patches = self.patch_embedding(pixels).flatten(2).transpose(1, 2)
        h = torch.cat([self.class_embedding.cast(patches).expand(len(patches), 1, -1), patches], 1)
        return h + self.position_embedding(torch.arange(h.shape[1], device=h.device)).to(h)

    def _transform(self, h: Tensor, frames: int) -> Tensor:
        h = self.pre_layer_norm(h)
        for layer in self.layers:
            h = layer(h, frames)
        return h

    def _check(self, pixels: Tensor) -> None:
        shape, side = list(pixels.shape), self.config.image_size
        if pixels.ndim not in (4, 5) or shape[1] != 3 or shape[-2:] != [side, side]:
            raise ValueError(
                f"The image encoder takes [B, 3, {side}, {side}] or [B, 3, T, {side}, {side}], not {shape}: "
                "prepare pixels with clip_pixels."
            )
        if pixels.numel() == 0:
            raise ValueError(f"The pixels of a prompt are empty ({shape}): give at least one image or frame.")
        if pixels.ndim == 5 and shape[2] > 1 and not self.config.temporal:
            raise ValueError(
                f"This image encoder has no temporal layers for a video of {shape[2]} frames: give an image."
            )
        require_finite(pixels, "The image or video of a prompt", "give other pixels")


class _Layer(nn.Module):
    """A pre-norm transformer layer with CLIP's approximate GELU; ``[B * T, N, C]`` keeps its shape."""

    def __init__(self, config: VisionEncoderConfig, factory: LayerFactory) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.attention = factory.attention
        self.layer_norm1 = factory.layer_norm(width)
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (factory.linear(width, width) for _ in range(4))
        self.temporal = _TemporalBlock(width, config.heads, factory) if config.temporal else None
        self.layer_norm2 = factory.layer_norm(width)
        self.fc1 = factory.linear(width, config.mlp)
        self.fc2 = factory.linear(config.mlp, width)

    def forward(self, h: Tensor, frames: int) -> Tensor:
        x = self.layer_norm1(h)
        h = h + self.out_proj(self.attention(self.q_proj(x), self.k_proj(x), self.v_proj(x), self.heads))
        if frames > 1:
            h = self.temporal(h, frames)
        x = self.fc1(self.layer_norm2(h))
        return h + self.fc2(x * torch.sigmoid(1.702 * x))


class _TemporalBlock(nn.Module):
    """Attention among the frames of each token, and a gated feed-forward: ``[B * T, N, C]`` keeps its shape."""

    def __init__(self, width: int, heads: int, factory: LayerFactory) -> None:
        super().__init__()
        self.temporal_attn = _TemporalAttention(width, heads, factory)
        self.temporal_rel_pos_bias = RelativePositionBias(width // 2, factory)
        self.temporal_rel_pos_bias.net[2] = factory.linear(width // 2, heads)
        self.ff = _TemporalFeedForward(width, factory)

    def forward(self, h: Tensor, frames: int) -> Tensor:
        x = h.unflatten(0, (-1, frames)).transpose(1, 2)
        size = x.shape[:2]
        x = x.flatten(0, 1)
        x = x + self.temporal_attn(x, self.temporal_rel_pos_bias((frames,), x))
        x = x + self.ff(x)
        return x.unflatten(0, size).transpose(1, 2).flatten(0, 1)


class _TemporalAttention(nn.Module):
    """``x [M, T, C]``, ``bias [heads, T, T]`` -> ``[M, T, C]``; its normalisation runs over the frames.

    The tables of positions and frame rates are in the published file; unlike in the diffuser, they are not used.
    """

    def __init__(self, width: int, heads: int, factory: LayerFactory) -> None:
        super().__init__()
        self.heads = heads
        self.pos_embeds = PositionTable(width, factory)
        self.frame_rate_embeds = PositionTable(width, factory)
        self.norm = ClampedNorm(width, factory=factory)
        self.to_q = factory.linear(width, width, bias=False)
        self.to_kv = factory.linear(width, 2 * width, bias=False)
        self.to_out = factory.linear(width, width, bias=False)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        x = self.norm(x)
        q, k, v = (
            t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (self.to_q(x), *self.to_kv(x).chunk(2, -1))
        )
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None]).transpose(1, 2).flatten(2)
        out = self.to_out(out)
        return out.masked_fill(out.isnan(), 0)  # as in the original, whose half precision may overflow


class _TemporalFeedForward(nn.Module):
    """A gated layer over the channels of each token and frame: ``[M, T, C]`` -> same."""

    def __init__(self, width: int, factory: LayerFactory) -> None:
        super().__init__()
        inner = int(width * 4 * 2 / 3)
        pointwise = {"kernel_size": 1, "bias": False, "dtype": factory.dtype, "device": factory.device}
        self.proj_in = nn.Sequential(factory.operations.Conv1d(width, 2 * inner, **pointwise))
        self.proj_out = nn.Sequential(
            ClampedNorm(1, inner, 1, factory=factory), factory.operations.Conv1d(inner, width, **pointwise)
        )

    def forward(self, x: Tensor) -> Tensor:
        norm, project = self.proj_out
        # In single precision throughout the gate and the norm, as in the original.
        value, gate = self.proj_in(x.transpose(1, 2)).float().chunk(2, 1)
        return project(norm(value * F.gelu(gate)).to(x.dtype)).transpose(1, 2)
