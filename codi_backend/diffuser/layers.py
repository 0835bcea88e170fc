"""The blocks of a two-dimensional diffusion U-Net: residual block, resampling, transformer (SPEC section 2.1)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from .factory import Factory

Sources = Sequence[tuple[Tensor, float]]
"""What a transformer attends to: token tensors ``[B, L, D]``, each with the weight of what it contributes."""


def per_frame(t: Tensor, h: Tensor) -> Tensor:
    """Repeat ``[B, ...]`` for every frame of ``h``, whose batch axis is ``B * frames``."""
    frames = h.shape[0] // t.shape[0]
    return t if frames == 1 else t.repeat_interleave(frames, 0)


class ResBlock(nn.Module):
    """Two normalised convolutions around the time embedding, and a skip (SPEC section 2.1).

    ``h [N, C_in, H, W]``, ``emb [B, E]`` (after its SiLU, which is the same for all blocks) -> ``[N, C_out, H, W]``,
    where N is B, or B times the number of frames.
    """

    def __init__(self, inputs: int, outputs: int, emb_dim: int, make: Factory, kernel: int = 3) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(make.group_norm(inputs), nn.SiLU(), make.conv(inputs, outputs, kernel))
        self.emb_layers = nn.Sequential(nn.Identity(), make.linear(emb_dim, outputs))
        self.out_layers = nn.Sequential(
            make.group_norm(outputs), nn.SiLU(), nn.Identity(), make.zeroed(make.conv(outputs, outputs, kernel))
        )
        self.skip_connection = nn.Identity() if inputs == outputs else make.conv(inputs, outputs, 1)

    def forward(self, h: Tensor, emb: Tensor) -> Tensor:
        inner = self.in_layers(h) + per_frame(self.emb_layers(emb), h)[:, :, None, None]
        return self.skip_connection(h) + self.out_layers(inner)


class Downsample(nn.Module):
    """Half the size: ``[N, C, H, W] -> [N, C, H / 2, W / 2]``, or with `keep_rows` ``[N, C, H, W / 2]``."""

    def __init__(self, channels: int, make: Factory, keep_rows: bool = False) -> None:
        super().__init__()
        self.op = make.conv(channels, channels, stride=(1, 2) if keep_rows else 2)

    def forward(self, h: Tensor) -> Tensor:
        return self.op(h)


class Upsample(nn.Module):
    """Twice the size: ``[N, C, H, W] -> [N, C, 2 H, 2 W]``."""

    def __init__(self, channels: int, make: Factory) -> None:
        super().__init__()
        self.conv = make.conv(channels, channels)

    def forward(self, h: Tensor) -> Tensor:
        return self.conv(F.interpolate(h, scale_factor=2.0, mode="nearest"))


class Attention(nn.Module):
    """Attention of ``x [N, L, C]`` to the tokens of one source ``[B, M, D]``, or to itself."""

    def __init__(self, channels: int, context_dim: int, heads: int, make: Factory) -> None:
        super().__init__()
        self.heads = heads
        self.attention = make.attention
        self.to_q = make.linear(channels, channels, bias=False)
        self.to_k = make.linear(context_dim, channels, bias=False)
        self.to_v = make.linear(context_dim, channels, bias=False)
        self.to_out = nn.Sequential(make.linear(channels, channels))

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        q, k, v = self.to_q(x), per_frame(self.to_k(tokens), x), per_frame(self.to_v(tokens), x)
        return self.to_out(self.attention(q, k, v, self.heads))

    def single(self, token: Tensor) -> Tensor:
        """What one token ``[B, 1, D]`` contributes, the same at every position: ``[B, 1, C]``.

        A softmax over one key is 1, so neither queries nor keys matter (SPEC section 2).
        """
        return self.to_out(self.to_v(token))


class GatedProjection(nn.Module):
    """``value * GELU(gate)`` of one linear layer's two halves: ``[..., C] -> [..., inner]``."""

    def __init__(self, channels: int, inner: int, make: Factory) -> None:
        super().__init__()
        self.proj = make.linear(channels, 2 * inner)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, -1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    """``[..., C] -> [..., C]`` through a gated layer four times as wide."""

    def __init__(self, channels: int, make: Factory) -> None:
        super().__init__()
        self.net = nn.Sequential(
            GatedProjection(channels, 4 * channels, make), nn.Identity(), make.linear(4 * channels, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention to each source, feed-forward; ``x [N, L, C]`` keeps its shape."""

    def __init__(self, channels: int, context_dim: int, heads: int, make: Factory) -> None:
        super().__init__()
        self.attn1 = Attention(channels, channels, heads, make)
        self.ff = FeedForward(channels, make)
        self.attn2 = Attention(channels, context_dim, heads, make)
        self.norm1 = make.layer_norm(channels)
        self.norm2 = make.layer_norm(channels)
        self.norm3 = make.layer_norm(channels)

    def forward(self, x: Tensor, sources: Sources, in_step: bool = False) -> Tensor:
        own = self.norm1(x)
        x = x + self.attn1(own, own)
        x = x + self._cross(x, sources, in_step)
        return x + self.ff(self.norm3(x))

    def _cross(self, x: Tensor, sources: Sources, in_step: bool) -> Tensor:
        query = None if in_step or all(tokens.shape[1] == 1 for tokens, _ in sources) else self.norm2(x)
        total = None
        for tokens, weight in sources:
            if in_step and tokens.shape[1] > 1:
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

    ``h [N, C, H, W]`` and sources ``[B, L, D]`` -> ``[N, C, H, W]``. Serves the prompt and, as a connector, the
    environment embeddings of other streams; several sources are attended separately and added with their weights. With
    `in_step`, tokens of a source belong to the rows of the feature map, each to its own (L divides H).
    """

    def __init__(self, channels: int, context_dim: int, heads: int, make: Factory) -> None:
        super().__init__()
        self.norm = make.group_norm(channels, eps=1e-6)
        self.proj_in = make.conv(channels, channels, 1)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(channels, context_dim, heads, make)])
        self.proj_out = make.zeroed(make.conv(channels, channels, 1))

    def forward(self, h: Tensor, sources: Sources, in_step: bool = False) -> Tensor:
        x = self.proj_in(self.norm(h)).permute(0, 2, 3, 1)
        size = x.shape[1:3]
        x = x.flatten(1, 2)
        for block in self.transformer_blocks:
            x = block(x, sources, in_step)
        return h + self.proj_out(x.unflatten(1, size).permute(0, 3, 1, 2))
