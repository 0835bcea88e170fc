"""Attention among all places in all frames of a clip."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from .factory import Factory
from .temporal_position import HEADS, RelativePositionBias


class ClipAttention(nn.Module):
    """Every place of every frame attends to all of them: ``h [B * T, C, H, W]`` -> same.

    Temporal attention sees one place through time, while when something appears there can depend on what appears
    elsewhere, and when. The cost grows with the square of ``T * H * W``.
    """

    def __init__(self, channels: int, make: Factory) -> None:
        super().__init__()
        self.norm = make.layer_norm(channels)
        self.to_qkv = make.linear(channels, 3 * channels, bias=False)
        self.bias = RelativePositionBias(channels // 2, make, axes=3)
        self.to_out = make.zeroed(make.linear(channels, channels))

    def forward(self, h: Tensor, frames: int) -> Tensor:
        size = h.shape[2:]
        tokens = h.flatten(2).transpose(1, 2).unflatten(0, (-1, frames)).flatten(1, 2)
        q, k, v = (t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in self.to_qkv(self.norm(tokens)).chunk(3, -1))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=self.bias((frames, *size), h)[None])
        out = self.to_out(out.transpose(1, 2).flatten(2))
        return h + out.unflatten(1, (frames, -1)).flatten(0, 1).transpose(1, 2).unflatten(2, size)
