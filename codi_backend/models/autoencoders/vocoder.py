"""The HiFi-GAN vocoder: log-mel spectrograms to waveforms (SPEC section 5.2)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...config import VocoderConfig

SLOPE = 0.1


class Vocoder(nn.Module):
    """The published vocoder, with its parameter names (weight normalisation is folded in).

    Parameters
    ----------
    config : VocoderConfig
    bands : int
        Mel bands of the spectrograms.
    operations : module or class
        Where layers come from: `torch.nn`, or one of ComfyUI's `comfy.ops`.
    dtype, device
        Of the parameters.
    """

    def __init__(self, config: VocoderConfig, bands: int, *, operations: Any = nn, dtype=None, device=None):
        super().__init__()
        place = {"dtype": dtype, "device": device}
        widths = [config.channels // 2**i for i in range(len(config.rates) + 1)]
        self.conv_pre = operations.Conv1d(bands, widths[0], 7, padding=3, **place)
        self.ups = nn.ModuleList(
            [
                operations.ConvTranspose1d(inputs, outputs, kernel, stride=rate, padding=(kernel - rate) // 2, **place)
                for inputs, outputs, kernel, rate in zip(widths, widths[1:], config.kernels, config.rates)
            ]
        )
        self.samples_per_frame = math.prod(config.rates)
        self.blocks_per_stage = len(config.block_kernels)
        self.resblocks = nn.ModuleList(
            [
                _ResBlock(width, kernel, config.dilations, operations, place)
                for width in widths[1:]
                for kernel in config.block_kernels
            ]
        )
        self.conv_post = operations.Conv1d(widths[-1], 1, 7, padding=3, **place)

    def forward(self, log_mel: Tensor) -> Tensor:
        """Log-mel ``[B, 1, T, bands]`` -> waveform ``[B, 1, N]`` in -1..1.

        N is T times the product of the rates, plus a few samples if a kernel and its rate differ in parity: the
        published vocoder returns 163 872 samples for 1024 frames, 2 ms more than their duration.
        """
        h = self.conv_pre(log_mel.squeeze(1).transpose(1, 2))
        for i, up in enumerate(self.ups):
            h = up(F.leaky_relu(h, SLOPE))
            blocks = self.resblocks[i * self.blocks_per_stage : (i + 1) * self.blocks_per_stage]
            h = sum(block(h) for block in blocks) / self.blocks_per_stage
        return torch.tanh(self.conv_post(F.leaky_relu(h)))


class _ResBlock(nn.Module):
    """Pairs of a dilated and an ordinary convolution, each pair with a skip; ``[B, C, N]`` keeps its shape."""

    def __init__(self, width: int, kernel: int, dilations: tuple[int, ...], operations: Any, place: dict[str, Any]):
        super().__init__()

        def convs(dilations: tuple[int, ...]) -> nn.ModuleList:
            return nn.ModuleList(
                [
                    operations.Conv1d(
                        width, width, kernel, padding=dilation * (kernel - 1) // 2, dilation=dilation, **place
                    )
                    for dilation in dilations
                ]
            )

        self.convs1 = convs(dilations)
        self.convs2 = convs((1,) * len(dilations))

    def forward(self, h: Tensor) -> Tensor:
        for dilated, plain in zip(self.convs1, self.convs2):
            h = h + plain(F.leaky_relu(dilated(F.leaky_relu(h, SLOPE)), SLOPE))
        return h
