"""The blocks of the text network, whose features are vectors (SPEC section 2.3).

A feature of C channels at P positions travels flattened, ``[B, C * P]`` with the channels outermost, so that the linear
layers that stand where an image network has convolutions, and the concatenation of skips, need no reshaping.
"""

from __future__ import annotations

from torch import Tensor, nn

from .factory import Factory
from .layers import ResBlock, Sources, Transformer
from .slots import Lent, Slot


class VectorResBlock(ResBlock):
    """A residual block of fully connected layers, stored as 1x1 convolutions: ``[B, D_in] -> [B, D_out]``."""

    def __init__(self, inputs: int, outputs: int, emb_dim: int, make: Factory) -> None:
        super().__init__(inputs, outputs, emb_dim, make, kernel=1)

    def forward(self, h: Tensor, emb: Tensor) -> Tensor:
        return super().forward(h[:, :, None, None], emb).flatten(1)


class VectorTransformer(Transformer):
    """A transformer over the P positions of a flattened feature: ``[B, C * P] -> [B, C * P]``."""

    def __init__(self, positions: int, channels: int, context_dim: int, heads: int, make: Factory) -> None:
        super().__init__(channels, context_dim, heads, make)
        self.positions = positions

    def forward(self, h: Tensor, sources: Sources, in_step: bool = False) -> Tensor:
        return super().forward(h.unflatten(1, (-1, self.positions, 1)), sources, in_step).flatten(1)


class VectorSlot(Slot):
    """A slot for transformers over the P positions of a flattened feature: ``[B, C * P] -> [B, C * P]``."""

    def __init__(self, positions: int, channels: int) -> None:
        super().__init__(channels)
        self.positions = positions

    def forward(self, h: Tensor, lent: Lent) -> Tensor:
        return super().forward(h.unflatten(1, (-1, self.positions, 1)), lent).flatten(1)


class VectorHead(nn.Sequential):
    """Normalisation over channels and positions, SiLU, linear: ``[B, C * P] -> [B, D]``."""

    def __init__(self, positions: int, channels: int, outputs: int, make: Factory) -> None:
        super().__init__(make.group_norm(channels), nn.SiLU(), make.linear(channels * positions, outputs))
        self.positions = positions

    def forward(self, h: Tensor) -> Tensor:
        norm, activation, linear = self
        return linear(activation(norm(h.unflatten(1, (-1, self.positions, 1)))).flatten(1))
