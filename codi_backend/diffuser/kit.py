"""Which layers a network is made of: those for feature maps, or those for vectors."""

from __future__ import annotations

from torch import Tensor, nn

from ..config import UNetConfig
from .factory import Factory
from .layers import Downsample, ResBlock, Sources, Transformer, Upsample
from .slots import Lent, Slot
from .temporal import TemporalResBlock
from .vector import VectorHead, VectorResBlock, VectorSlot, VectorTransformer


class SpatialKit:
    """Layers for ``[N, C, H, W]``."""

    def __init__(self, config: UNetConfig, make: Factory) -> None:
        self.make = make
        self.heads = config.num_heads
        self.emb_dim = 4 * config.model_channels
        self.temporal_norm = config.temporal_norm if config.temporal else None

    def entry(self, inputs: int, channels: int) -> nn.Module:
        return self.make.conv(inputs, channels)

    def residual(self, inputs: int, channels: int, clip: bool = False) -> nn.Module:
        if self.temporal_norm is None:
            return ResBlock(inputs, channels, self.emb_dim, self.make)
        return TemporalResBlock(inputs, channels, self.emb_dim, self.make, self.temporal_norm, clip)

    def down(self, channels: int, keep_rows: bool = False) -> nn.Module:
        return Downsample(channels, self.make, keep_rows)

    def up(self, channels: int) -> nn.Module:
        return Upsample(channels, self.make)

    def transformer(self, channels: int, context_dim: int) -> Transformer:
        return Transformer(channels, context_dim, self.heads, self.make)

    def slot(self, channels: int) -> Slot:
        return Slot(channels)

    def head(self, channels: int, outputs: int) -> nn.Module:
        return nn.Sequential(self.make.group_norm(channels), nn.SiLU(), self.make.conv(channels, outputs))


class VectorKit:
    """Layers for ``[B, C * P]`` (SPEC section 2.3); every level has the same P."""

    def __init__(self, config: UNetConfig, make: Factory) -> None:
        self.make = make
        self.heads = config.num_heads
        self.emb_dim = 4 * config.model_channels
        self.positions = config.text_positions

    def entry(self, inputs: int, channels: int) -> nn.Module:
        return self.make.linear(inputs, channels * self.positions)

    def residual(self, inputs: int, channels: int, clip: bool = False) -> nn.Module:
        return VectorResBlock(inputs * self.positions, channels * self.positions, self.emb_dim, self.make)

    def down(self, channels: int) -> nn.Module:
        return self.make.linear(channels * self.positions, channels * self.positions)

    up = down

    def transformer(self, channels: int, context_dim: int) -> Transformer:
        return VectorTransformer(self.positions, channels, context_dim, self.heads, self.make)

    def slot(self, channels: int) -> Slot:
        return VectorSlot(self.positions, channels)

    def head(self, channels: int, outputs: int) -> nn.Module:
        return VectorHead(self.positions, channels, outputs, self.make)


Kit = SpatialKit | VectorKit


def kit_for(config: UNetConfig, make: Factory) -> Kit:
    return SpatialKit(config, make) if config.text_positions is None else VectorKit(config, make)


class Stage(nn.ModuleList):
    """Layers in a row, each given what it needs."""

    def forward(self, h: Tensor, emb: Tensor, sources: Sources | Lent = (), frames: int | None = None) -> Tensor:
        for layer in self:
            if isinstance(layer, (Transformer, Slot)):
                h = layer(h, sources)
            elif isinstance(layer, TemporalResBlock):
                h = layer(h, emb, frames)
            elif isinstance(layer, ResBlock):
                h = layer(h, emb)
            else:
                h = layer(h)
        return h
