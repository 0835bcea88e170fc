"""Full attention over space and time."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from ..layer_factory import LayerFactory
from .temporal_position import HEADS, RelativePositionBias


class VideoAttention(nn.Module):
    """Attention over all positions of all frames of a video: ``h [B * T, C, H, W]`` -> same.

    Temporal attention covers one position only. This layer also relates events at different positions and times. Its
    cost grows with the square of ``T * H * W``.
    """

    def __init__(self, channels: int, factory: LayerFactory) -> None:
        super().__init__()
        self.norm = factory.layer_norm(channels)
        self.to_qkv = factory.linear(channels, 3 * channels, bias=False)
        self.bias = RelativePositionBias(channels // 2, factory, axes=3)
        self.to_out = factory.zeroed(factory.linear(channels, channels))

    def forward(self, h: Tensor, frames: int) -> Tensor:
        size = h.shape[2:]
        tokens = h.flatten(2).transpose(1, 2).unflatten(0, (-1, frames)).flatten(1, 2)
        q, k, v = (t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in self.to_qkv(self.norm(tokens)).chunk(3, -1))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=self.bias((frames, *size), h)[None])
        out = self.to_out(out.transpose(1, 2).flatten(2))
        return h + out.unflatten(1, (frames, -1)).flatten(0, 1).transpose(1, 2).unflatten(2, size)
