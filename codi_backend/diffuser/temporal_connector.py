"""What a stream with time makes of another's environment tokens before its connectors hear them."""

from __future__ import annotations

from torch import Tensor, nn

from .factory import Factory
from .layers import FeedForward
from .temporal import TemporalAttention
from .temporal_position import RelativePositionBias


class TemporalConnector(nn.Module):
    """Attention among environment tokens ``[B, T, D]`` over time, ``T <= 30``, and a gated layer -> same shape.

    A token tells what happens at its moment; a connector hears one moment at a time. How many things have happened by
    then, or that nothing has yet, takes all of them.
    """

    def __init__(self, channels: int, make: Factory) -> None:
        super().__init__()
        self.attn = TemporalAttention(channels, make, "channels")
        self.bias = RelativePositionBias(channels // 2, make)
        self.norm = make.layer_norm(channels)
        self.ff = FeedForward(channels, make)
        make.zeroed(self.ff.net[-1])

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attn(tokens[:, :, None], self.bias(tokens.shape[1:2], tokens))[:, :, 0]
        return tokens + self.ff(self.norm(tokens))
