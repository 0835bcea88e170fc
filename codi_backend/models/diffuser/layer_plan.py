"""The layer types of a network: for feature maps, or for vectors."""

from __future__ import annotations

from torch import Tensor, nn

from ...config import UNetConfig
from ..layer_factory import LayerFactory
from .layers import Downsample, ResBlock, Sources, Transformer, Upsample
from .shared_attention import SharedCrossAttention, SharedLayers
from .temporal import TemporalResBlock
from .vector import VectorHead, VectorResBlock, VectorSharedCrossAttention, VectorTransformer


class SpatialPlan:
    """Layers for feature maps ``[N, C, H, W]``."""

    def __init__(self, config: UNetConfig, factory: LayerFactory) -> None:
        self.factory = factory
        self.heads = config.num_heads
        self.emb_dim = 4 * config.model_channels
        self.temporal_norm = config.temporal_norm if config.temporal else None

    def entry(self, inputs: int, channels: int) -> nn.Module:
        return self.factory.conv(inputs, channels)

    def residual(self, inputs: int, channels: int, full_attention: bool = False) -> nn.Module:
        if self.temporal_norm is None:
            return ResBlock(inputs, channels, self.emb_dim, self.factory)
        return TemporalResBlock(inputs, channels, self.emb_dim, self.factory, self.temporal_norm, full_attention)

    def down(self, channels: int, keep_rows: bool = False) -> nn.Module:
        return Downsample(channels, self.factory, keep_rows)

    def up(self, channels: int) -> nn.Module:
        return Upsample(channels, self.factory)

    def transformer(self, channels: int, context_dim: int) -> Transformer:
        return Transformer(channels, context_dim, self.heads, self.factory)

    def shared_cross_attention(self, channels: int) -> SharedCrossAttention:
        return SharedCrossAttention(channels)

    def head(self, channels: int, outputs: int) -> nn.Module:
        return nn.Sequential(self.factory.group_norm(channels), nn.SiLU(), self.factory.conv(channels, outputs))


class VectorPlan:
    """Layers for flattened features ``[B, C * P]`` (SPEC section 2.3); P is the same at every level."""

    def __init__(self, config: UNetConfig, factory: LayerFactory) -> None:
        self.factory = factory
        self.heads = config.num_heads
        self.emb_dim = 4 * config.model_channels
        self.positions = config.text_positions

    def entry(self, inputs: int, channels: int) -> nn.Module:
        return self.factory.linear(inputs, channels * self.positions)

    def residual(self, inputs: int, channels: int, full_attention: bool = False) -> nn.Module:
        return VectorResBlock(inputs * self.positions, channels * self.positions, self.emb_dim, self.factory)

    def down(self, channels: int) -> nn.Module:
        return self.factory.linear(channels * self.positions, channels * self.positions)

    up = down

    def transformer(self, channels: int, context_dim: int) -> Transformer:
        return VectorTransformer(self.positions, channels, context_dim, self.heads, self.factory)

    def shared_cross_attention(self, channels: int) -> SharedCrossAttention:
        return VectorSharedCrossAttention(self.positions, channels)

    def head(self, channels: int, outputs: int) -> nn.Module:
        return VectorHead(self.positions, channels, outputs, self.factory)


LayerPlan = SpatialPlan | VectorPlan


def plan_for(config: UNetConfig, factory: LayerFactory) -> LayerPlan:
    """The plan for a configuration: `VectorPlan` with `text_positions`, else `SpatialPlan`."""
    return SpatialPlan(config, factory) if config.text_positions is None else VectorPlan(config, factory)


class Stage(nn.ModuleList):
    """A sequence of layers; each gets those of the arguments that it takes."""

    def forward(
        self, h: Tensor, emb: Tensor, sources: Sources | SharedLayers = (), frames: int | None = None
    ) -> Tensor:
        for layer in self:
            if isinstance(layer, (Transformer, SharedCrossAttention)):
                h = layer(h, sources)
            elif isinstance(layer, TemporalResBlock):
                h = layer(h, emb, frames)
            elif isinstance(layer, ResBlock):
                h = layer(h, emb)
            else:
                h = layer(h)
        return h
