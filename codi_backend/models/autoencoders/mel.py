"""Log-mel spectrograms, and their inversion without a vocoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...config import MelConfig
from .audio_dsp import griffin_lim, mel_filter_bank


class LogMel(nn.Module):
    """Log-mel spectrograms, time before frequency (SPEC section 5.2), with an approximate inverse.

    The inverse first estimates a non-negative magnitude spectrogram from the mel bands. Multiplicative updates favour
    few strong bins, which keeps the pitch sharp. It then estimates the phases by the Griffin-Lim algorithm.
    """

    def __init__(self, config: MelConfig):
        super().__init__()
        self.config = config
        with torch.device("cpu"):  # constants keep their values in a model on the meta device
            bank = mel_filter_bank(config)
            window = torch.hann_window(config.n_fft)
        self.register_buffer("bank", bank.T.contiguous(), persistent=False)  # [bands, n_fft // 2 + 1]
        self.register_buffer("window", window, persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """Samples ``[B, 1, N]`` -> natural logarithms of the mel bands ``[B, 1, N // hop, bands]``."""
        config = self.config
        spectrum = torch.stft(
            waveform.squeeze(1).float(),
            config.n_fft,
            config.hop,
            window=self.window.float(),
            center=True,
            pad_mode="reflect",
            return_complex=True,
        )
        mel = self.bank.float() @ spectrum.abs()[..., : waveform.shape[-1] // config.hop]
        return mel.clamp(min=config.floor).log().transpose(1, 2).unsqueeze(1)

    def invert(self, log_mel: Tensor, iterations: int = 32) -> Tensor:
        """Estimate a waveform deterministically: ``[B, 1, T, bands]`` -> ``[B, 1, T * hop]``."""
        config = self.config
        mel = log_mel.squeeze(1).transpose(1, 2).float().exp()
        # Values at the floor are silence, not faint noise.
        mel = torch.where(mel < 1.5 * config.floor, torch.zeros_like(mel), mel)
        mel = torch.cat([mel, mel[..., -1:]], -1)  # T * hop samples have T + 1 centred frames
        magnitude = self._magnitude(mel)
        length = log_mel.shape[2] * config.hop
        return griffin_lim(magnitude, self.window.float(), config.hop, length, iterations).unsqueeze(1)

    def _magnitude(self, mel: Tensor, iterations: int = 100) -> Tensor:
        bank = self.bank.float()
        weight = bank.sum(0)[:, None]
        start = bank.T @ mel
        estimate = start + 1e-3 * start.amax((1, 2), keepdim=True) + 1e-9
        for _ in range(iterations):
            estimate = estimate * (bank.T @ (mel / (bank @ estimate).clamp(min=1e-9))) / weight.clamp(min=1e-9)
        return estimate
