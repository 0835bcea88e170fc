"""The coupler: a small critic of noisy latents, whose gradient pulls streams of different models towards agreement.

A coupler has an encoder for each latent space. Encoders reduce noisy latents to tokens, and the inner products of two
streams' tokens estimate the log density ratio ``log p(x, y) - log p(x) - log p(y)`` at a noise level. Its gradient is
what the joint score has in addition to the scores of the single streams (docs/coupling.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config.coupler import CouplerConfig, LatentSpace
from ..modalities import modality
from .diffuser import Diffuser
from .diffuser.environment import pooled, resampled, temporal_channels
from .noise_schedule import timestep_of

# A grid is brought to at most this extent before the first convolution, by patches.
_GRID, _TIME_STEPS, _BANDS = 16, 32, 4
_MODALITY_AXES = {"text": "", "image": "HW", "video": "THW", "audio": "TF"}
_LOWEST, _HIGHEST = 0.01, 100.0  # noise levels, relative to the latents' deviation, that encoders distinguish
_FREQUENCIES = 16
_TEMPERATURE = 0.1  # of environment tokens, as in best-of-N


class Tokens(NamedTuple):
    """A stream's pooled token ``[B, D]``, and its tokens over time ``[B, T, D]`` if it has a time axis."""

    pooled: Tensor
    over_time: Tensor | None


class Coupler(nn.Module):
    """Compares noisy latents of any number of streams, trained on pairs of them.

    Attributes
    ----------
    spaces : tuple of LatentSpace
        The latent spaces that it has encoders for.
    """

    def __init__(self, config: CouplerConfig) -> None:
        super().__init__()
        self.config = config
        self.spaces = config.spaces
        self.encoders = nn.ModuleList(LatentEncoder(space, config) for space in config.spaces)
        self.log_scales = nn.Parameter(torch.full((2,), -math.log(config.token_dim) / 2))

    @staticmethod
    def from_codi(diffuser: Diffuser, scale_factors: Mapping[str, float]) -> EnvironmentCoupler:
        """The environment encoders of a CoDi as a coupler; see `EnvironmentCoupler`."""
        return EnvironmentCoupler(diffuser, scale_factors)

    def match(self, shapes: Sequence[Sequence[int]]) -> list[int]:
        """The index of the space of each stream, by the streams' shapes ``[B, C, ...]``; see `match_spaces`."""
        return match_spaces(self.spaces, shapes)

    def tokens(self, space: int, latents: Tensor, sigma: Tensor) -> Tokens:
        """Encode a stream.

        Parameters
        ----------
        space : int
            Index of its latent space.
        latents : Tensor
            ``[B, C, ...]``: clean latents plus `sigma` times unit noise, in the units of the autoencoder.
        sigma : Tensor
            ``[B]``, 0 for clean latents.
        """
        return self.encoders[space](latents, sigma)

    def logits(self, a: Tokens, b: Tokens) -> Tensor:
        """Log density ratios of all pairs of rows, up to terms of one stream: ``[..., N, N]`` of ``[..., N, D]``."""
        pooled, moment = self.log_scales.clamp(max=math.log(20)).exp()
        logits = pooled * a.pooled @ b.pooled.transpose(-1, -2)
        if a.over_time is None or b.over_time is None:
            return logits
        over_time = aligned(a, b)
        steps = over_time[0].shape[-2]
        return logits + moment / steps * torch.einsum("...ntd,...mtd->...nm", *over_time)

    def score(self, a: Tokens, b: Tokens) -> Tensor:
        """Log density ratio of corresponding rows, ``[B]``."""
        pooled, moment = self.log_scales.clamp(max=math.log(20)).exp()
        score = pooled * (a.pooled * b.pooled).sum(-1)
        if a.over_time is None or b.over_time is None:
            return score
        first, second = aligned(a, b)
        return score + moment * (first * second).sum(-1).mean(-1)


class EnvironmentCoupler(nn.Module):
    """The environment encoders of a CoDi as a coupler: latent alignment trains them with InfoNCE on noisy latents, too.

    Parameters
    ----------
    diffuser : Diffuser
    scale_factors : dict of str to float
        By modality, the factor from the autoencoder's latents to the diffuser's; of the streams that can be coupled.

    Raises
    ------
    ValueError
        If a stream's network has no environment encoder.
    """

    def __init__(self, diffuser: Diffuser, scale_factors: Mapping[str, float]) -> None:
        super().__init__()
        if unaligned := diffuser.config.unaligned(scale_factors):
            raise ValueError(f"This model has no environment encoder for {', '.join(unaligned)}: load a later edition.")
        self.diffuser, self.scale_factors = diffuser, dict(scale_factors)
        self.spaces = tuple(
            LatentSpace(name, channels, _MODALITY_AXES[name], (), (0.0,) * channels, 1 / factor)
            for name, factor in scale_factors.items()
            for channels in (diffuser.config.networks[modality(name).network].in_channels,)
        )

    def match(self, shapes: Sequence[Sequence[int]]) -> list[int]:
        """As `Coupler.match`."""
        return match_spaces(self.spaces, shapes)

    def tokens(self, space: int, latents: Tensor, sigma: Tensor) -> Tokens:
        """As `Coupler.tokens`."""
        name, factor = self.spaces[space].name, self.scale_factors[self.spaces[space].name]
        level = sigma * factor
        scaled = (latents.flatten(1) if name == "text" else latents) * factor
        scaled = scaled / (1 + level**2).sqrt().reshape(-1, *[1] * (scaled.ndim - 1))
        tokens = self.diffuser.environment({name: scaled}, timestep_of(level))[name]
        over_time = F.normalize(temporal_channels(tokens), dim=-1) if tokens.shape[1] > 1 else None
        return Tokens(pooled(tokens)[:, 0], over_time)

    def score(self, a: Tokens, b: Tokens) -> Tensor:
        """As `Coupler.score`: similarity of the tokens over a temperature."""
        score = (a.pooled * b.pooled).sum(-1)
        if a.over_time is not None and b.over_time is not None:
            first, second = aligned(a, b)
            score = score + (first * second).sum(-1).mean(-1)
        return score / _TEMPERATURE


def aligned(a: Tokens, b: Tokens) -> tuple[Tensor, Tensor]:
    """Tokens over time of both streams, of which equal places are equal times; streams have equal durations."""
    first, second = a.over_time, b.over_time
    steps = min(first.shape[-2], second.shape[-2])
    return tuple(
        t if t.shape[-2] == steps else resampled(t.flatten(0, -3), steps).unflatten(0, t.shape[:-2])
        for t in (first, second)
    )


def match_spaces(spaces: Sequence[LatentSpace], shapes: Sequence[Sequence[int]]) -> list[int]:
    """The index of the space of each stream, by the streams' shapes ``[B, C, ...]``.

    Vectors may have two unit axes, as text latents in ComfyUI. Where several spaces fit, the first that no earlier
    stream has is taken.

    Raises
    ------
    ValueError
        If a stream fits no space that is left.
    """
    found: list[int] = []
    for shape in shapes:
        fitting = [i for i, space in enumerate(spaces) if i not in found and _fits(space, shape)]
        if not fitting:
            known = ", ".join(f"{s.name} [B, {', '.join(map(str, (s.channels, *s.axes)))}]" for s in spaces)
            raise ValueError(
                f"a latent of shape {list(shape)} fits no free latent space of this coupler, which has {known}; train "
                "a coupler on latents of this kind."
            )
        found.append(fitting[0])
    return found


def _fits(space: LatentSpace, shape: Sequence[int]) -> bool:
    extent = tuple(shape[2:])
    return len(shape) > 1 and shape[1] == space.channels and (
        len(extent) == len(space.axes) or (not space.axes and extent == (1, 1))
    )  # fmt: skip


class LatentEncoder(nn.Module):
    """Encodes noisy latents of one space as `Tokens`.

    The network is convolutional: patches, a residual block, a coarser level with more of them, and attention among all
    places. For videos all this is per frame, with residual blocks over time in between: frames have much in common, so
    that their average is readable at noise levels at which a single one is not. Streams with a time axis get further
    residual blocks over time.
    """

    def __init__(self, space: LatentSpace, config: CouplerConfig) -> None:
        super().__init__()
        width, wide = config.width, 2 * config.width
        self.space = space
        self.register_buffer("mean", torch.tensor(space.mean).reshape(1, -1, *[1] * len(space.axes)), persistent=False)
        self.register_buffer("frequencies", torch.arange(_FREQUENCIES) * math.pi / 2, persistent=False)
        self.patch, down = _strides(space)
        kernel = {"": 1, "T": (3, 1)}.get(space.axes, 3)
        self.embed = nn.Sequential(nn.Linear(2 * _FREQUENCIES, wide), nn.SiLU(), nn.Linear(wide, wide), nn.SiLU())
        self.entry = nn.Conv2d(space.channels, width, self.patch, self.patch)
        self.fine = _ResBlock(width, width, wide, kernel)
        self.down = nn.Conv2d(width, wide, down, down)
        self.coarse = nn.ModuleList(_ResBlock(wide, wide, wide, kernel) for _ in range(config.blocks))
        self.attention = _Attention(wide) if space.axes else nn.Identity()
        is_video = space.axes == "THW"
        self.frames_fine = _ResBlock(width, width, wide, (5, 1)) if is_video else None
        self.frames_coarse = _ResBlock(wide, wide, wide, (5, 1)) if is_video else None
        has_time = "T" in space.axes
        self.over_time = nn.ModuleList(_ResBlock(wide, wide, wide, (3, 1)) for _ in range(2 if has_time else 0))
        self.pooled_head = nn.Sequential(nn.LayerNorm(wide), nn.Linear(wide, config.token_dim))
        self.time_head = nn.Sequential(nn.LayerNorm(wide), nn.Linear(wide, config.token_dim)) if has_time else None

    def forward(self, latents: Tensor, sigma: Tensor) -> Tokens:
        """``[B, C, ...]`` and ``[B]``, both in the units of the autoencoder, see `Coupler.tokens`."""
        batch = len(latents)
        if not self.space.axes:
            latents = latents.flatten(1)
        level = (sigma / self.space.std).float()
        broad = level.reshape(-1, *[1] * (latents.ndim - 1))
        h = (latents.float() - self.mean) / (self.space.std * (1 + broad**2).sqrt())
        angle = level.clamp(_LOWEST, _HIGHEST).log()[:, None] / math.log(_HIGHEST) * self.frequencies
        emb = self.embed(torch.cat([angle.cos(), angle.sin()], 1))
        h = self._as_maps(h)
        frames = len(h) // batch
        per_map = emb.repeat_interleave(frames, 0) if frames > 1 else emb
        h = F.pad(h, [pad for size, patch in zip(h.shape[:1:-1], self._multiple()) for pad in (0, -size % patch)])
        h = self.entry(h.contiguous(memory_format=torch.channels_last))
        if self.frames_fine is not None:
            h = _over_frames(self.frames_fine, h, emb)
        h = self.down(self.fine(h, per_map))
        if self.frames_coarse is not None:
            h = _over_frames(self.frames_coarse, h, emb)
        for block in self.coarse:
            h = block(h, per_map)
        h = self.attention(h)
        if self.time_head is None:
            return Tokens(self.pooled_head(h.mean((2, 3))), None)
        if frames > 1 or self.space.axes == "THW":
            h = h.mean((2, 3)).unflatten(0, (batch, frames)).transpose(1, 2)[..., None]
        else:
            h = h.mean(3, keepdim=True)
        for block in self.over_time:
            h = block(h, emb)
        moments = h.squeeze(3).transpose(1, 2)
        return Tokens(self.pooled_head(moments.mean(1)), self.time_head(moments))

    def _as_maps(self, h: Tensor) -> Tensor:
        """``[N, C, rows, columns]``: vectors as single places, videos as frames, other streams as they are."""
        if self.space.axes == "":
            return h[:, :, None, None]
        if self.space.axes == "T":
            return h[..., None]
        if self.space.axes == "FT":
            return h.transpose(2, 3)
        return h.transpose(1, 2).flatten(0, 1) if self.space.axes == "THW" else h

    def _multiple(self) -> tuple[int, int]:
        """What the columns and the rows of a map must be multiples of."""
        rows, columns = (patch * down for patch, down in zip(self.patch, self.down.stride))
        return columns, rows


def _strides(space: LatentSpace) -> tuple[tuple[int, int], tuple[int, int]]:
    """Patch, and stride of the coarser level, in rows and columns."""
    extent = (*space.shape[-2:], 1, 1)[:2]
    if "T" in space.axes and space.axes != "THW":
        targets = (_TIME_STEPS, _BANDS)
        extent = extent[::-1] if space.axes == "FT" else extent
    else:
        targets = (_GRID, _GRID)
    patch = tuple(2 ** max(0, math.ceil(math.log2(size / target))) for size, target in zip(extent, targets))
    down = tuple(2 if size / one > 2 else 1 for size, one in zip(extent, patch))
    return patch, down


def _over_frames(block: _ResBlock, h: Tensor, emb: Tensor) -> Tensor:
    """A block over the time axis of the maps of frames ``[B T, C, H, W]``, at every place by itself."""
    batch, (height, width) = len(emb), h.shape[2:]
    lines = h.unflatten(0, (batch, -1)).permute(0, 2, 1, 3, 4).flatten(3)
    return block(lines, emb).unflatten(3, (height, width)).transpose(1, 2).flatten(0, 1)


class _ResBlock(nn.Module):
    """Two normalised convolutions around an embedding of the noise level, and a skip."""

    def __init__(self, inputs: int, outputs: int, emb_dim: int, kernel: int | tuple[int, int]) -> None:
        super().__init__()
        self.norm_in, self.norm_out = (nn.GroupNorm(math.gcd(8, c), c) for c in (inputs, outputs))
        self.conv_in = nn.Conv2d(inputs, outputs, kernel, padding="same")
        self.conv_out = nn.Conv2d(outputs, outputs, kernel, padding="same")
        self.modulation = nn.Linear(emb_dim, 2 * outputs)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)

    def forward(self, h: Tensor, emb: Tensor) -> Tensor:
        scale, shift = self.modulation(emb)[:, :, None, None].chunk(2, 1)
        inner = self.conv_in(F.silu(self.norm_in(h)))
        return h + self.conv_out(F.silu(self.norm_out(inner) * (1 + scale) + shift))


class _Attention(nn.Module):
    """Self-attention among the places of a map ``[N, C, H, W]``, and a skip."""

    def __init__(self, channels: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(math.gcd(8, channels), channels)
        self.to_qkv, self.to_out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)

    def forward(self, h: Tensor) -> Tensor:
        x = self.norm(h).flatten(2).transpose(1, 2)
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in self.to_qkv(x).chunk(3, -1))
        out = self.to_out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return h + out.transpose(1, 2).unflatten(2, h.shape[2:])
