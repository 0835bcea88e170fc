"""The audio prompt encoder: CLAP's HTSAT, a hierarchical token-semantic transformer (SPEC section 3.2)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...checks.inputs import as_rate, as_samples
from ...config import ClapConfig, MelConfig
from ..autoencoders.audio_dsp import mel_filter_bank, resample
from ..diffuser.temporal import RawParameter
from ..layer_factory import LayerFactory


class CutPrompt(UserWarning):
    """An audio prompt is longer than the encoder's input and was truncated."""


class AudioEncoder(nn.Module):
    """A Swin transformer over log-mel spectrograms, with average pooling, projection and normalisation.

    The original crops long audio at random; this encoder takes a central crop, so that it is deterministic.

    Parameters
    ----------
    config : ClapConfig
    operations : module or class
        Where layers come from: `torch.nn`, or one of ComfyUI's `comfy.ops`.
    dtype, device
        Of the parameters.
    """

    def __init__(self, config: ClapConfig, *, operations: Any = nn, dtype=None, device=None) -> None:
        super().__init__()
        self.config = config
        factory = LayerFactory(operations, dtype, device)
        self.band_norm = _BandNorm(config.mel.bands, factory)
        self.patch_embedding = _PatchEmbedding(config.patch, config.width, factory)
        self.layers = nn.ModuleList([_Stage(config, index, factory) for index in range(len(config.depths))])
        width = config.width * 2 ** (len(config.depths) - 1)
        self.norm = factory.layer_norm(width)
        self.audio_projection = nn.Sequential(
            factory.linear(width, config.embedding_dim),
            nn.ReLU(),
            factory.linear(config.embedding_dim, config.embedding_dim),
        )
        self.unused = _UnusedLayers(config, width, factory)

    def forward(self, waveform: Tensor, sample_rate: int) -> Tensor:
        """Encode audio.

        Parameters
        ----------
        waveform : Tensor
            Mono samples ``[B, 1, N]``. They become `config.samples` at `config.mel.sample_rate`: longer audio is
            cropped centrally; shorter audio is repeated as often as it fits and padded with silence.
        sample_rate : int
            In Hz.

        Returns
        -------
        Tensor
            ``[B, 1, embedding_dim]``, each of length 1, in the dtype of the parameters.

        Raises
        ------
        ValueError
            For another shape, no samples, samples that are not finite or too large, or a rate out of range.
        """
        return self.embed(log_mel(self.prepare(waveform, sample_rate), self.config.mel))

    def prepare(self, waveform: Tensor, sample_rate: int) -> Tensor:
        """Resample and fit ``[B, 1, N]``: single-precision ``[B, 1, samples]`` at `config.mel.sample_rate`."""
        waveform, sample_rate = as_samples(waveform, "The audio of a prompt"), as_rate(sample_rate)
        _check(waveform)
        config = self.config
        waveform = resample(waveform, sample_rate, config.input_rate)
        return fit(resample(waveform, config.input_rate, config.mel.sample_rate), config.samples)

    def embed(self, mel: Tensor) -> Tensor:
        """Single-precision decibels ``[B, 1, T, bands]`` from `log_mel` -> embeddings ``[B, 1, embedding_dim]``."""
        h = self.patch_embedding(fold(self.band_norm(mel), self.config.image_size))
        for stage in self.layers:
            h = stage(h)
        return F.normalize(self.audio_projection(self.norm(h).mean((1, 2))), dim=-1)[:, None]


def _check(waveform: Tensor) -> None:
    shape = list(waveform.shape)
    if waveform.ndim != 3 or shape[1] != 1:
        raise ValueError(
            f"An audio prompt must be mono, [B, 1, N], not {shape}: average the channels of stereo audio first."
        )
    if waveform.numel() == 0:
        raise ValueError(
            f"The audio of a prompt is empty ({shape}): give at least one waveform of at least one sample."
        )


def fit(waveform: Tensor, samples: int) -> Tensor:
    """Fit ``[B, 1, N]`` to `samples`: a central crop, or whole repetitions padded with silence."""
    length = waveform.shape[-1]
    if length >= samples:
        return waveform.narrow(-1, (length - samples) // 2, samples)
    repeated = waveform.repeat(1, 1, samples // length)
    return F.pad(repeated, (0, samples - repeated.shape[-1]))


def log_mel(waveform: Tensor, config: MelConfig) -> Tensor:
    """Mel power spectrogram in decibels: ``[B, 1, N]`` -> ``[B, 1, 1 + N // hop, bands]``, in single precision.

    Unlike `autoencoders.LogMel` it uses powers, and decibels of ``max(power, floor)`` (SPEC section 3.2, step 3).
    """
    bank = mel_filter_bank(config)
    spectrum = torch.stft(
        waveform.squeeze(1),
        config.n_fft,
        config.hop,
        window=torch.hann_window(config.n_fft, device=waveform.device),
        center=True,
        pad_mode="reflect",
        return_complex=True,
    )
    power = spectrum.real.square() + spectrum.imag.square()
    mel = power.transpose(1, 2) @ bank.to(waveform.device)
    return 10 * mel.clamp(min=config.floor).log10()[:, None]


def fold(mel: Tensor, size: int) -> Tensor:
    """Stretch ``[B, 1, T, bands]`` in time and stack ``size // bands`` segments: ``[B, 1, size, size]``.

    Rows are segment after segment, each from low to high bands; columns are time within a segment.
    """
    bands = mel.shape[-1]
    segments = size // bands
    stretched = F.interpolate(mel, (segments * size, bands), mode="bicubic", align_corners=True)
    return stretched.unflatten(2, (segments, size)).transpose(3, 4).flatten(2, 3)


class _BandNorm(nn.Module):
    """Batch normalisation per mel band with stored statistics: ``[B, 1, T, bands]`` keeps its shape."""

    def __init__(self, bands: int, factory: LayerFactory) -> None:
        super().__init__()
        place = {"dtype": factory.dtype, "device": factory.device}
        self.gain = RawParameter(torch.ones(bands, **place))
        self.offset = RawParameter(torch.zeros(bands, **place))
        self.mean = RawParameter(torch.zeros(bands, **place)).requires_grad_(False)
        self.variance = RawParameter(torch.ones(bands, **place)).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        scale = self.gain.cast(x) * (self.variance.cast(x) + 1e-5).rsqrt()
        return (x - self.mean.cast(x)) * scale + self.offset.cast(x)


class _PatchEmbedding(nn.Module):
    """``[B, 1, size, size]`` -> ``[B, size // patch, size // patch, C]``."""

    def __init__(self, patch: int, width: int, factory: LayerFactory) -> None:
        super().__init__()
        self.proj = factory.operations.Conv2d(1, width, patch, stride=patch, dtype=factory.dtype, device=factory.device)
        self.norm = factory.layer_norm(width)

    def forward(self, image: Tensor) -> Tensor:
        # Half precision begins here, since the spectrogram spans 200 dB. ComfyUI's layers cast their weights to the
        # input's dtype instead.
        if not getattr(self.proj, "comfy_cast_weights", False):
            image = image.to(self.proj.weight.dtype)
        return self.norm(self.proj(image).permute(0, 2, 3, 1))


class _Stage(nn.Module):
    """Swin blocks, and patch merging except in the last stage: ``[B, H, W, C] -> [B, H/2, W/2, 2C]``."""

    def __init__(self, config: ClapConfig, index: int, factory: LayerFactory) -> None:
        super().__init__()
        width = config.width * 2**index
        self.window, self.shift = window_and_shift(config, index)
        self.blocks = nn.ModuleList(
            [_Block(width, config.heads[index], self.window, factory) for _ in range(config.depths[index])]
        )
        self.downsample = _PatchMerging(width, factory) if index + 1 < len(config.depths) else None

    def forward(self, x: Tensor) -> Tensor:
        mask = shift_mask(x.shape[1], self.window, self.shift, x.device).to(x.dtype) if self.shift else None
        for index, block in enumerate(self.blocks):
            x = block(x, self.shift, mask) if index % 2 else block(x, 0, None)
        return x if self.downsample is None else self.downsample(x)


class _Block(nn.Module):
    """Attention within windows, optionally shifted, and a feed-forward: ``[B, H, W, C]`` keeps its shape."""

    def __init__(self, width: int, heads: int, window: int, factory: LayerFactory) -> None:
        super().__init__()
        self.window = window
        self.norm1 = factory.layer_norm(width)
        self.attn = _WindowAttention(width, heads, window, factory)
        self.norm2 = factory.layer_norm(width)
        self.fc1 = factory.linear(width, 4 * width)
        self.fc2 = factory.linear(4 * width, width)

    def forward(self, x: Tensor, shift: int, mask: Tensor | None) -> Tensor:
        h = split_windows(self.norm1(x).roll((-shift, -shift), (1, 2)), self.window)
        h = _join_windows(self.attn(h, mask), x.shape[1], self.window)
        x = x + h.roll((shift, shift), (1, 2))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class _WindowAttention(nn.Module):
    """Attention with a learned bias per relative position: ``[B, N, P, C]`` keeps its shape; ``mask [N, P, P]``."""

    def __init__(self, width: int, heads: int, window: int, factory: LayerFactory) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.qkv = factory.linear(width, 3 * width)
        self.proj = factory.linear(width, width)
        self.relative_position_bias_table = RawParameter(
            0.02 * torch.randn((2 * window - 1) ** 2, heads, dtype=factory.dtype, device=factory.device)
        )

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        windows, positions = x.shape[1:3]
        # Windows become heads, so that one mask serves the whole batch.
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(3, 0, 1, 4, 2, 5).flatten(2, 3)
        bias = self.relative_position_bias_table.cast(x)[window_index(self.window, x.device)].permute(2, 0, 1)
        if mask is not None:
            bias = bias + mask[:, None]
        bias = bias.expand(windows, -1, -1, -1).reshape(1, -1, positions, positions)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.proj(out.unflatten(1, (windows, self.heads)).transpose(2, 3).flatten(3))


class _PatchMerging(nn.Module):
    """Merges each 2 x 2 square of tokens: ``[B, H, W, C] -> [B, H/2, W/2, 2C]``."""

    def __init__(self, width: int, factory: LayerFactory) -> None:
        super().__init__()
        self.norm = factory.layer_norm(4 * width)
        self.reduction = factory.linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        corners = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.reduction(self.norm(torch.cat(corners, -1)))


class _UnusedLayers(nn.Module):
    """Tagging and transfer layers of the published file, which the embedding does not depend on."""

    def __init__(self, config: ClapConfig, width: int, factory: LayerFactory) -> None:
        super().__init__()
        bands = config.mel.bands // config.patch // 2 ** (len(config.depths) - 1)
        self.tscam_conv = factory.operations.Conv2d(
            width, config.classes, (bands, 3), dtype=factory.dtype, device=factory.device
        )
        self.head = factory.linear(config.classes, config.classes)
        self.transform_in = factory.linear(config.embedding_dim, config.embedding_dim)
        self.transform_out = factory.linear(config.embedding_dim, config.embedding_dim)


def window_and_shift(config: ClapConfig, stage: int) -> tuple[int, int]:
    """Window side of a stage and shift of its odd blocks, in tokens; the shift is 0 for a single window."""
    size = config.image_size // config.patch // 2**stage
    return min(config.window, size), config.window // 2 if size > config.window else 0


def window_index(window: int, device: torch.device | str | None = None) -> Tensor:
    """Row of the bias table for each pair of positions in a window: ``[window ** 2, window ** 2]``."""
    side = torch.arange(window, device=device)
    row, column = side.repeat_interleave(window), side.repeat(window)
    down = row[:, None] - row + window - 1
    right = column[:, None] - column + window - 1
    return down * (2 * window - 1) + right


def shift_mask(size: int, window: int, shift: int, device: torch.device | str | None = None) -> Tensor:
    """Additive attention mask of shifted windows, ``[windows, window ** 2, window ** 2]``.

    -100 between tokens that share a window only because the shift wraps around, 0 elsewhere.
    """
    side = torch.arange(size, device=device)
    region = (side >= size - window).int() + (side >= size - shift).int()
    regions = split_windows((3 * region[:, None] + region)[None, :, :, None], window)[0, :, :, 0]
    return -100.0 * (regions[:, :, None] != regions[:, None]).float()


def split_windows(x: Tensor, window: int) -> Tensor:
    """``[B, H, W, C] -> [B, windows, window ** 2, C]``."""
    x = x.unflatten(2, (-1, window)).unflatten(1, (-1, window))
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def _join_windows(x: Tensor, height: int, window: int) -> Tensor:
    x = x.unflatten(2, (window, window)).unflatten(1, (height // window, -1))
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)
