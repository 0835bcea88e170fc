"""The blocks of a two-dimensional diffusion U-Net: residual block, resampling, transformer (SPEC section 2.1)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from ..layer_factory import LayerFactory

Sources = Sequence[tuple[Tensor, float]]
"""Cross-attention context: token tensors ``[B, L, D]`` of several sources, each with the weight of its contribution."""


def per_frame(t: Tensor, h: Tensor) -> Tensor:
    """Repeat ``[B, ...]`` for every frame of ``h``, whose batch axis is ``B * frames``."""
    frames = h.shape[0] // t.shape[0]
    return t if frames == 1 else t.repeat_interleave(frames, 0)


class ResBlock(nn.Module):
    """Two normalised convolutions around the time embedding, and a skip (SPEC section 2.1).

    ``h [N, C_in, H, W]``, ``emb [B, E]`` (SiLU already applied) -> ``[N, C_out, H, W]``, where N is B, or B times the
    number of frames.
    """

    def __init__(self, inputs: int, outputs: int, emb_dim: int, factory: LayerFactory, kernel: int = 3) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(factory.group_norm(inputs), nn.SiLU(), factory.conv(inputs, outputs, kernel))
        self.emb_layers = nn.Sequential(nn.Identity(), factory.linear(emb_dim, outputs))
        self.out_layers = nn.Sequential(
            factory.group_norm(outputs),
            nn.SiLU(),
            nn.Identity(),
            factory.zeroed(factory.conv(outputs, outputs, kernel)),
        )
        self.skip_connection = nn.Identity() if inputs == outputs else factory.conv(inputs, outputs, 1)

    def forward(self, h: Tensor, emb: Tensor) -> Tensor:
        inner = self.in_layers(h) + per_frame(self.emb_layers(emb), h)[:, :, None, None]
        return self.skip_connection(h) + self.out_layers(inner)


class Downsample(nn.Module):
    """Halve the size: ``[N, C, H, W] -> [N, C, H / 2, W / 2]``, or with `keep_rows` ``[N, C, H, W / 2]``."""

    def __init__(self, channels: int, factory: LayerFactory, keep_rows: bool = False) -> None:
        super().__init__()
        self.op = factory.conv(channels, channels, stride=(1, 2) if keep_rows else 2)

    def forward(self, h: Tensor) -> Tensor:
        return self.op(h)


class Upsample(nn.Module):
    """Double the size: ``[N, C, H, W] -> [N, C, 2 H, 2 W]``."""

    def __init__(self, channels: int, factory: LayerFactory) -> None:
        super().__init__()
        self.conv = factory.conv(channels, channels)

    def forward(self, h: Tensor) -> Tensor:
        return self.conv(F.interpolate(h, scale_factor=2.0, mode="nearest"))


class Attention(nn.Module):
    """Attention of ``x [N, L, C]`` to the tokens of one source ``[B, M, D]``, or to itself."""

    def __init__(self, channels: int, context_dim: int, heads: int, factory: LayerFactory) -> None:
        super().__init__()
        self.heads = heads
        self.attention = factory.attention
        self.to_q = factory.linear(channels, channels, bias=False)
        self.to_k = factory.linear(context_dim, channels, bias=False)
        self.to_v = factory.linear(context_dim, channels, bias=False)
        self.to_out = nn.Sequential(factory.linear(channels, channels))

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        q, k, v = self.to_q(x), per_frame(self.to_k(tokens), x), per_frame(self.to_v(tokens), x)
        return self.to_out(self.attention(q, k, v, self.heads))

    def single(self, token: Tensor) -> Tensor:
        """The output for one token ``[B, 1, D]``, which is the same at every position: ``[B, 1, C]``.

        A softmax over one key is 1, so neither queries nor keys matter (SPEC section 2).
        """
        return self.to_out(self.to_v(token))


class GatedProjection(nn.Module):
    """``value * GELU(gate)`` of one linear layer's two halves: ``[..., C] -> [..., inner]``."""

    def __init__(self, channels: int, inner: int, factory: LayerFactory) -> None:
        super().__init__()
        self.proj = factory.linear(channels, 2 * inner)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, -1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    """A gated feed-forward layer with four times the width inside: ``[..., C] -> [..., C]``."""

    def __init__(self, channels: int, factory: LayerFactory) -> None:
        super().__init__()
        self.net = nn.Sequential(
            GatedProjection(channels, 4 * channels, factory), nn.Identity(), factory.linear(4 * channels, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention to each source, feed-forward; ``x [N, L, C]`` keeps its shape."""

    def __init__(self, channels: int, context_dim: int, heads: int, factory: LayerFactory) -> None:
        super().__init__()
        self.attn1 = Attention(channels, channels, heads, factory)
        self.ff = FeedForward(channels, factory)
        self.attn2 = Attention(channels, context_dim, heads, factory)
        self.norm1 = factory.layer_norm(channels)
        self.norm2 = factory.layer_norm(channels)
        self.norm3 = factory.layer_norm(channels)

    def forward(self, x: Tensor, sources: Sources, row_wise: bool = False) -> Tensor:
        own = self.norm1(x)
        x = x + self.attn1(own, own)
        x = x + self._cross(x, sources, row_wise)
        return x + self.ff(self.norm3(x))

    def _cross(self, x: Tensor, sources: Sources, row_wise: bool) -> Tensor:
        query = None if row_wise or all(tokens.shape[1] == 1 for tokens, _ in sources) else self.norm2(x)
        total = None
        for tokens, weight in sources:
            if row_wise and tokens.shape[1] > 1:
                part = self.attn2.single(tokens).repeat_interleave(x.shape[1] // tokens.shape[1], 1)
            elif tokens.shape[1] == 1:
                part = per_frame(self.attn2.single(tokens), x)
            else:
                part = self.attn2(query, tokens)
            part = part if weight == 1 else part * weight
            total = part if total is None else total + part
        return total


class Transformer(nn.Module):
    """A transformer over the positions of a feature map, with a skip (SPEC section 2.1).

    ``h [N, C, H, W]`` and sources ``[B, L, D]`` -> ``[N, C, H, W]``. Attends to the prompt or, as a connector, to the
    environment tokens of other streams. Sources are attended to separately, and their weighted outputs are added. With
    `row_wise`, each row of the feature map attends to its own token of a source (L divides H).
    """

    def __init__(self, channels: int, context_dim: int, heads: int, factory: LayerFactory) -> None:
        super().__init__()
        self.norm = factory.group_norm(channels, eps=1e-6)
        self.proj_in = factory.conv(channels, channels, 1)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(channels, context_dim, heads, factory)])
        self.proj_out = factory.zeroed(factory.conv(channels, channels, 1))

    def forward(self, h: Tensor, sources: Sources, row_wise: bool = False) -> Tensor:
        x = self.proj_in(self.norm(h)).permute(0, 2, 3, 1)
        size = x.shape[1:3]
        x = x.flatten(1, 2)
        for block in self.transformer_blocks:
            x = block(x, sources, row_wise)
        return h + self.proj_out(x.unflatten(1, size).permute(0, 3, 1, 2))
