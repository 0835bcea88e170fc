"""The diffusion network of one latent space: a U-Net with connectors (SPEC sections 2 and 2.1)."""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...config import UNetConfig
from ..layer_factory import AttentionFunction, LayerFactory
from ..layer_factory import attention as default_attention
from .environment import EnvironmentEncoder, pooled, resampled
from .layer_plan import LayerPlan, Stage, plan_for
from .layers import Sources, Transformer
from .shared_attention import SharedCrossAttention, SharedLayers
from .temporal_connector import TemporalConnector


def sinusoid(timesteps: Tensor, width: int) -> Tensor:
    """Sinusoidal embedding, cosines first: ``[B] -> [B, width]`` in single precision (SPEC section 2, step 2)."""
    half = width // 2
    exponent = torch.arange(half, dtype=torch.float32, device=timesteps.device) / half
    angle = timesteps.float()[:, None] * torch.exp(-math.log(10000.0) * exponent)
    return torch.cat([angle.cos(), angle.sin()], 1)


class TimeEmbedding(nn.Sequential):
    """Embeds timesteps ``[B]`` as ``[B, 4 * width]``, including the SiLU that begins every residual block."""

    def __init__(self, width: int, factory: LayerFactory) -> None:
        super().__init__(factory.linear(width, 4 * width), nn.SiLU(), factory.linear(4 * width, 4 * width))
        self.width = width

    def forward(self, timesteps: Tensor, dtype: torch.dtype) -> Tensor:
        return F.silu(super().forward(sinusoid(timesteps, self.width).to(dtype)))


def fold_frames(x: Tensor) -> tuple[Tensor, int | None]:
    """Fold the frames of a video ``[B, C, T, H, W]`` into the batch axis; also return T, or None for other latents."""
    return (x.transpose(1, 2).flatten(0, 1), x.shape[2]) if x.ndim == 5 else (x, None)


class UNet(nn.Module):
    """Predicts the noise in a latent of image, video, audio or text, by configuration (SPEC sections 2, 2.1 and 2.3).

    Parameters
    ----------
    config : UNetConfig
    shared : bool
        Whether the diffuser owns the transformers that attend to the prompt, and the time embedding.
    middle_as_first_skip : bool
        Released quirk Q-SKIP-ALIAS (SPEC section 2).
    operations, dtype, device, attention
        See `LayerFactory`.
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
        factory = LayerFactory(operations, dtype, device, attention or default_attention)
        plan = plan_for(config, factory)
        self.time_embed = None if shared else TimeEmbedding(config.model_channels, factory)
        over_frames = plan_for(dataclasses.replace(config, temporal_norm="frames"), factory)
        self.environment_encoder = EnvironmentEncoder(config, over_frames) if config.aligned else None
        self.input_connectors = nn.ModuleDict()
        self.output_connectors = nn.ModuleDict()
        self.temporal_connectors = nn.ModuleList(
            TemporalConnector(config.environment_dim, factory) for _ in range(config.temporal_connectors)
        )
        self.input_blocks, skips = self._encoder(plan)
        channels = skips[-1]
        residual = partial(plan.residual, full_attention=config.clip_attention[len(config.channel_mult) - 1])
        self.middle_block = Stage(
            [residual(channels, channels), self._cross_attention(plan, channels), residual(channels, channels)]
        )
        self.output_blocks = self._decoder(plan, skips)
        self.out = plan.head(config.channel_mult[0] * config.model_channels, config.in_channels)
        self.shared_widths = self._number_shared()

    def _number_shared(self) -> tuple[int, ...]:
        """Number the shared cross-attention layers in execution order; return their channels."""
        layers = [module for module in self.modules() if isinstance(module, SharedCrossAttention)]
        for number, layer in enumerate(layers):
            layer.number = number
        return tuple(layer.channels for layer in layers)

    def _cross_attention(self, plan: LayerPlan, channels: int) -> Transformer | SharedCrossAttention:
        """The layer that attends to the prompt: the network's own transformer, or a shared one."""
        if self.shared:
            return plan.shared_cross_attention(channels)
        return plan.transformer(channels, self.config.context_dim)

    def _encoder(self, plan: LayerPlan) -> tuple[nn.ModuleList, list[int]]:
        """Build the encoder; also return the channels of every block's output."""
        config = self.config
        channels = config.model_channels
        blocks = nn.ModuleList([Stage([plan.entry(config.in_channels, channels)])])
        skips = [channels]
        for level, mult in enumerate(config.channel_mult):
            for _ in range(config.num_res_blocks[level]):
                inputs, channels = channels, mult * config.model_channels
                stage = Stage([plan.residual(inputs, channels, full_attention=config.clip_attention[level])])
                if config.attention[level]:
                    stage.append(self._cross_attention(plan, channels))
                if config.connector[level]:
                    self.input_connectors[str(len(blocks))] = plan.transformer(channels, config.environment_dim)
                blocks.append(stage)
                skips.append(channels)
            if level < len(config.channel_mult) - 1:
                blocks.append(Stage([plan.down(channels)]))
                skips.append(channels)
        return blocks, skips

    def _decoder(self, plan: LayerPlan, skips: list[int]) -> nn.ModuleList:
        config = self.config
        skips = list(skips)
        channels = skips[-1]
        blocks = nn.ModuleList()
        for level, mult in reversed(list(enumerate(config.channel_mult))):
            for i in range(config.num_res_blocks[level] + 1):
                inputs, channels = channels + skips.pop(), mult * config.model_channels
                stage = Stage([plan.residual(inputs, channels, full_attention=config.clip_attention[level])])
                if config.attention[level]:
                    stage.append(self._cross_attention(plan, channels))
                if level > 0 and i == config.num_res_blocks[level]:
                    stage.append(plan.up(channels))
                if config.connector[level]:
                    self.output_connectors[str(len(blocks))] = plan.transformer(channels, config.environment_dim)
                blocks.append(stage)
        return blocks

    def environment(self, x: Tensor, emb: Tensor) -> Tensor:
        """Environment tokens of a noisy latent: ``x``, ``emb`` of `TimeEmbedding` -> ``[B, T, environment_dim]``."""
        h, frames = fold_frames(x)
        return self.environment_encoder(h, emb, frames)

    def forward(
        self, x: Tensor, emb: Tensor, context: Tensor | SharedLayers, attended: Sources = (), gate: float = 0.0
    ) -> Tensor:
        """Predict the noise.

        Parameters
        ----------
        x : Tensor
            ``[B, C, H, W]``, a video ``[B, C, T, H, W]`` (needs `temporal`), or ``[B, D]`` with `text_positions`.
        emb : Tensor
            ``[B, 4 * model_channels]``, see `TimeEmbedding`.
        context : Tensor or SharedLayers
            Prompt tokens, ``[B, L, context_dim]``; with `shared`, transformers with their tokens.
        attended : sequence of (Tensor, float)
            Environment tokens ``[B, T, environment_dim]`` that the connectors attend to, with their weights.
        gate : float
            Scale of the connectors' residuals: 0 skips the connectors, 1 is their full effect.

        Returns
        -------
        Tensor
            Shaped like `x`.
        """
        h, frames = fold_frames(x)
        sources = context if self.shared else ((context, 1.0),)
        skips = []
        if gate and self.temporal_connectors:
            attended = [(self._apply_temporal_connectors(tokens, h, frames), weight) for tokens, weight in attended]
        for i, block in enumerate(self.input_blocks):
            h = block(h, emb, sources, frames)
            h = self._attend(self.input_connectors, i, h, attended, gate, frames)
            skips.append(h)
        h = self.middle_block(h, emb, sources, frames)
        if self.middle_as_first_skip:
            skips[-1] = h
        for i, block in enumerate(self.output_blocks):
            h = block(torch.cat([h, skips.pop()], 1), emb, sources, frames)
            h = self._attend(self.output_connectors, i, h, attended, gate, frames)
        h = self.out(h)
        return h if frames is None else h.unflatten(0, (-1, frames)).transpose(1, 2)

    def _attend(
        self, connectors: nn.ModuleDict, index: int, h: Tensor, attended: Sources, gate: float, frames: int | None
    ) -> Tensor:
        if gate == 0 or str(index) not in connectors:
            return h
        connector: Transformer = connectors[str(index)]
        changed = connector(
            h, [(self._match_time(tokens, h, frames), weight) for tokens, weight in attended], row_wise=True
        )
        return changed if gate == 1 else h + gate * (changed - h)

    def _apply_temporal_connectors(self, tokens: Tensor, h: Tensor, frames: int | None) -> Tensor:
        """Tokens ``[B, T, D]`` of a source after temporal attention, at no more time steps than this stream has."""
        steps = self._steps(h, frames)
        if steps is None or tokens.shape[1] == 1:
            return tokens
        if steps < tokens.shape[1]:
            tokens = resampled(tokens, steps)
        for connector in self.temporal_connectors:
            tokens = connector(tokens)
        return tokens

    def _match_time(self, tokens: Tensor, h: Tensor, frames: int | None) -> Tensor:
        """Resample tokens ``[B, T, D]`` of a source to this stream's time steps; both streams have the same duration.

        For a stream without a time axis they are averaged over time.
        """
        if tokens.shape[1] == 1:
            return tokens
        steps = self._steps(h, frames)
        if steps is None:
            return pooled(tokens)
        tokens = resampled(tokens, steps)
        return tokens if frames is None else tokens.flatten(0, 1)[:, None]

    def _steps(self, h: Tensor, frames: int | None) -> int | None:
        """Number of time steps of this stream at feature map `h`; None without a time axis."""
        if self.config.environment_time == "rows":
            return h.shape[2]
        return frames if self.config.environment_time == "frames" else None
