"""The blocks of the text network, whose features are vectors (SPEC section 2.3).

Features of C channels at P positions are flattened, ``[B, C * P]`` with the channels outermost. So linear layers, which
replace the convolutions of an image network, and the concatenation of skips need no reshaping.
"""

from __future__ import annotations

from torch import Tensor, nn

from ..layer_factory import LayerFactory
from .layers import ResBlock, Sources, Transformer
from .shared_attention import SharedCrossAttention, SharedLayers


class VectorResBlock(ResBlock):
    """A residual block of fully connected layers, stored as 1x1 convolutions: ``[B, D_in] -> [B, D_out]``."""

    def __init__(self, inputs: int, outputs: int, emb_dim: int, factory: LayerFactory) -> None:
        super().__init__(inputs, outputs, emb_dim, factory, kernel=1)

    def forward(self, h: Tensor, emb: Tensor) -> Tensor:
        return super().forward(h[:, :, None, None], emb).flatten(1)


class VectorTransformer(Transformer):
    """A transformer over the P positions of a flattened feature: ``[B, C * P] -> [B, C * P]``."""

    def __init__(self, positions: int, channels: int, context_dim: int, heads: int, factory: LayerFactory) -> None:
        super().__init__(channels, context_dim, heads, factory)
        self.positions = positions

    def forward(self, h: Tensor, sources: Sources, row_wise: bool = False) -> Tensor:
        return super().forward(h.unflatten(1, (-1, self.positions, 1)), sources, row_wise).flatten(1)


class VectorSharedCrossAttention(SharedCrossAttention):
    """Shared cross-attention over the P positions of a flattened feature: ``[B, C * P] -> [B, C * P]``."""

    def __init__(self, positions: int, channels: int) -> None:
        super().__init__(channels)
        self.positions = positions

    def forward(self, h: Tensor, shared_layers: SharedLayers) -> Tensor:
        return super().forward(h.unflatten(1, (-1, self.positions, 1)), shared_layers).flatten(1)


class VectorHead(nn.Sequential):
    """Normalisation over channels and positions, SiLU, linear: ``[B, C * P] -> [B, D]``."""

    def __init__(self, positions: int, channels: int, outputs: int, factory: LayerFactory) -> None:
        super().__init__(factory.group_norm(channels), nn.SiLU(), factory.linear(channels * positions, outputs))
        self.positions = positions

    def forward(self, h: Tensor) -> Tensor:
        norm, activation, linear = self
        return linear(activation(norm(h.unflatten(1, (-1, self.positions, 1)))).flatten(1))
