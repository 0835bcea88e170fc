"""The diffuser of one latent space: a U-Net with connectors (SPEC sections 2 and 2.1)."""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import UNetConfig
from .environment import EnvironmentEncoder, pooled, resampled
from .factory import AttentionFunction, Factory
from .factory import attention as default_attention
from .kit import Kit, Stage, kit_for
from .layers import Sources, Transformer
from .slots import Lent, Slot
from .temporal_connector import TemporalConnector


def sinusoid(timesteps: Tensor, width: int) -> Tensor:
    """Sinusoidal embedding, cosines first: ``[B] -> [B, width]`` in single precision (SPEC section 2, step 2)."""
    half = width // 2
    exponent = torch.arange(half, dtype=torch.float32, device=timesteps.device) / half
    angle = timesteps.float()[:, None] * torch.exp(-math.log(10000.0) * exponent)
    return torch.cat([angle.cos(), angle.sin()], 1)


class TimeEmbedding(nn.Sequential):
    """Embeds timesteps ``[B]`` as ``[B, 4 * width]``, with the SiLU that every residual block begins with."""

    def __init__(self, width: int, make: Factory) -> None:
        super().__init__(make.linear(width, 4 * width), nn.SiLU(), make.linear(4 * width, 4 * width))
        self.width = width

    def forward(self, timesteps: Tensor, dtype: torch.dtype) -> Tensor:
        return F.silu(super().forward(sinusoid(timesteps, self.width).to(dtype)))


def fold_frames(x: Tensor) -> tuple[Tensor, int | None]:
    """Move the frames of a video ``[B, C, T, H, W]`` to the batch axis; other latents have no frames (None)."""
    return (x.transpose(1, 2).flatten(0, 1), x.shape[2]) if x.ndim == 5 else (x, None)


class UNet(nn.Module):
    """Predicts the noise in one latent; image, audio or text by configuration (SPEC sections 2, 2.1 and 2.3).

    Parameters
    ----------
    config : UNetConfig
    shared : bool
        Whether the diffuser lends the network the transformers of its slots, and embeds the timesteps for it.
    middle_as_first_skip : bool
        Released quirk Q-SKIP-ALIAS (SPEC section 2).
    operations, dtype, device, attention
        See `Factory`.
    """

    def __init__(
        self,
        config: UNetConfig,
        *,
        shared: bool = False,
        middle_as_first_skip: bool = False,
        operations: Any = nn,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        attention: AttentionFunction | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.shared = shared
        self.middle_as_first_skip = middle_as_first_skip
        make = Factory(operations, dtype, device, attention or default_attention)
        kit = kit_for(config, make)
        self.time_embed = None if shared else TimeEmbedding(config.model_channels, make)
        over_frames = kit_for(dataclasses.replace(config, temporal_norm="frames"), make)
        self.environment_encoder = EnvironmentEncoder(config, over_frames) if config.aligned else None
        self.input_connectors = nn.ModuleDict()
        self.output_connectors = nn.ModuleDict()
        self.temporal_connectors = nn.ModuleList(
            TemporalConnector(config.environment_dim, make) for _ in range(config.temporal_connectors)
        )
        self.input_blocks, skips = self._encoder(kit)
        channels = skips[-1]
        residual = partial(kit.residual, clip=config.clip_attention[len(config.channel_mult) - 1])
        self.middle_block = Stage(
            [residual(channels, channels), self._prompted(kit, channels), residual(channels, channels)]
        )
        self.output_blocks = self._decoder(kit, skips)
        self.out = kit.head(config.channel_mult[0] * config.model_channels, config.in_channels)
        self.slots = tuple(module.channels for module in self._numbered_slots())

    def _numbered_slots(self) -> list[Slot]:
        """Number the slots in the order in which they are used."""
        slots = [module for module in self.modules() if isinstance(module, Slot)]
        for number, slot in enumerate(slots):
            slot.number = number
        return slots

    def _prompted(self, kit: Kit, channels: int) -> Transformer | Slot:
        """What attends to the prompt: a transformer of the network's own, or a place for one."""
        return kit.slot(channels) if self.shared else kit.transformer(channels, self.config.context_dim)

    def _encoder(self, kit: Kit) -> tuple[nn.ModuleList, list[int]]:
        """Build the encoder; also return the channels of every block's output."""
        config = self.config
        channels = config.model_channels
        blocks = nn.ModuleList([Stage([kit.entry(config.in_channels, channels)])])
        skips = [channels]
        for level, mult in enumerate(config.channel_mult):
            for _ in range(config.num_res_blocks[level]):
                inputs, channels = channels, mult * config.model_channels
                stage = Stage([kit.residual(inputs, channels, clip=config.clip_attention[level])])
                if config.attention[level]:
                    stage.append(self._prompted(kit, channels))
                if config.connector[level]:
                    self.input_connectors[str(len(blocks))] = kit.transformer(channels, config.environment_dim)
                blocks.append(stage)
                skips.append(channels)
            if level < len(config.channel_mult) - 1:
                blocks.append(Stage([kit.down(channels)]))
                skips.append(channels)
        return blocks, skips

    def _decoder(self, kit: Kit, skips: list[int]) -> nn.ModuleList:
        config = self.config
        skips = list(skips)
        channels = skips[-1]
        blocks = nn.ModuleList()
        for level, mult in reversed(list(enumerate(config.channel_mult))):
            for i in range(config.num_res_blocks[level] + 1):
                inputs, channels = channels + skips.pop(), mult * config.model_channels
                stage = Stage([kit.residual(inputs, channels, clip=config.clip_attention[level])])
                if config.attention[level]:
                    stage.append(self._prompted(kit, channels))
                if level > 0 and i == config.num_res_blocks[level]:
                    stage.append(kit.up(channels))
                if config.connector[level]:
                    self.output_connectors[str(len(blocks))] = kit.transformer(channels, config.environment_dim)
                blocks.append(stage)
        return blocks

    def environment(self, x: Tensor, emb: Tensor) -> Tensor:
        """Environment tokens of a noisy latent: ``x``, ``emb`` of `TimeEmbedding` -> ``[B, T, environment_dim]``."""
        h, frames = fold_frames(x)
        return self.environment_encoder(h, emb, frames)

    def forward(self, x: Tensor, emb: Tensor, context: Tensor | Lent, heard: Sources = (), gate: float = 0.0) -> Tensor:
        """Predict the noise.

        Parameters
        ----------
        x : Tensor
            ``[B, C, H, W]``, a video ``[B, C, T, H, W]`` (needs `temporal`), or ``[B, D]`` with `text_positions`.
        emb : Tensor
            ``[B, 4 * model_channels]``, see `TimeEmbedding`.
        context : Tensor or Lent
            Prompt tokens, ``[B, L, context_dim]``; with `shared`, what fills the slots.
        heard : sequence of (Tensor, float)
            Environment tokens ``[B, T, environment_dim]`` for the connectors, and their weights.
        gate : float
            How far a connector may move its input: 0 skips the connectors, 1 is their full effect.

        Returns
        -------
        Tensor
            Shaped like `x`.
        """
        h, frames = fold_frames(x)
        sources = context if self.shared else ((context, 1.0),)
        skips = []
        if gate and self.temporal_connectors:
            heard = [(self._over_time(tokens, h, frames), weight) for tokens, weight in heard]
        for i, block in enumerate(self.input_blocks):
            h = block(h, emb, sources, frames)
            h = self._listen(self.input_connectors, i, h, heard, gate, frames)
            skips.append(h)
        h = self.middle_block(h, emb, sources, frames)
        if self.middle_as_first_skip:
            skips[-1] = h
        for i, block in enumerate(self.output_blocks):
            h = block(torch.cat([h, skips.pop()], 1), emb, sources, frames)
            h = self._listen(self.output_connectors, i, h, heard, gate, frames)
        h = self.out(h)
        return h if frames is None else h.unflatten(0, (-1, frames)).transpose(1, 2)

    def _listen(
        self, connectors: nn.ModuleDict, index: int, h: Tensor, heard: Sources, gate: float, frames: int | None
    ) -> Tensor:
        if gate == 0 or str(index) not in connectors:
            return h
        connector: Transformer = connectors[str(index)]
        changed = connector(h, [(self._in_time(tokens, h, frames), weight) for tokens, weight in heard], in_step=True)
        return changed if gate == 1 else h + gate * (changed - h)

    def _over_time(self, tokens: Tensor, h: Tensor, frames: int | None) -> Tensor:
        """Tokens ``[B, T, D]`` of another stream, each told what the others say, at this stream's steps at most."""
        steps = self._steps(h, frames)
        if steps is None or tokens.shape[1] == 1:
            return tokens
        if steps < tokens.shape[1]:
            tokens = resampled(tokens, steps)
        for connector in self.temporal_connectors:
            tokens = connector(tokens)
        return tokens

    def _in_time(self, tokens: Tensor, h: Tensor, frames: int | None) -> Tensor:
        """Tokens ``[B, T, D]`` of another stream, as the time steps of this one hear them.

        Both streams last equally long. A stream without time hears the mean over time.
        """
        if tokens.shape[1] == 1:
            return tokens
        steps = self._steps(h, frames)
        if steps is None:
            return pooled(tokens)
        tokens = resampled(tokens, steps)
        return tokens if frames is None else tokens.flatten(0, 1)[:, None]

    def _steps(self, h: Tensor, frames: int | None) -> int | None:
        """How many time steps this stream has at a feature map of it; None if it keeps no time."""
        if self.config.environment_time == "rows":
            return h.shape[2]
        return frames if self.config.environment_time == "frames" else None
