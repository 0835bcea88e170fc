"""Temporal attention over another stream's environment tokens, before the connectors attend to them."""

from __future__ import annotations

from torch import Tensor, nn

from ..layer_factory import LayerFactory
from .layers import FeedForward
from .temporal import TemporalAttention
from .temporal_position import RelativePositionBias


class TemporalConnector(nn.Module):
    """Temporal attention and a feed-forward layer over environment tokens ``[B, T, D]``, ``T <= 30`` -> same shape.

    A connector attends to the token of one time step only. With this layer that token can also carry information about
    other steps, such as how many events came before it.
    """

    def __init__(self, channels: int, factory: LayerFactory) -> None:
        super().__init__()
        self.attn = TemporalAttention(channels, factory, "channels")
        self.bias = RelativePositionBias(channels // 2, factory)
        self.norm = factory.layer_norm(channels)
        self.ff = FeedForward(channels, factory)
        factory.zeroed(self.ff.net[-1])

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attn(tokens[:, :, None], self.bias(tokens.shape[1:2], tokens))[:, :, 0]
        return tokens + self.ff(self.norm(tokens))
