"""Configurations of the autoencoders."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class ImageAutoencoderConfig:
    """Arguments of diffusers' `AutoencoderKL`, and the factor between VAE latents and diffuser latents.

    `patch` folds squares of that many pixels into channels before the VAE, which makes a small model cheap (1: off).
    `image_size` (pixels), `frames` and `frame_rate` (per second) are the defaults of generation.
    """

    latent_channels: int = 4
    patch: int = 1
    channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    norm_groups: int = 32
    scale_factor: float = 0.18215
    image_size: int = 256
    frames: int = 8
    frame_rate: float = 4.0


@dataclass(frozen=True)
class MelConfig:
    """Log-mel spectrograms (SPEC section 5.2): magnitudes, Slaney bands, natural logarithm of ``max(x, floor)``."""

    sample_rate: int = 16000
    n_fft: int = 1024
    hop: int = 160
    bands: int = 64
    f_min: float = 0.0
    f_max: float = 8000.0
    floor: float = 1e-5


@dataclass(frozen=True)
class VocoderConfig:
    """A HiFi-GAN (SPEC section 5.2), published size by default.

    Attributes
    ----------
    channels : int
        Channels before the first upsampling; each upsampling halves them.
    rates, kernels : tuple of int
        Factor and kernel size of each upsampling.
    block_kernels, dilations : tuple of int
        Kernel sizes of the residual blocks after each upsampling, and dilations within each block.
    """

    channels: int = 1024
    rates: tuple[int, ...] = (5, 4, 2, 2, 2)
    kernels: tuple[int, ...] = (16, 16, 8, 4, 4)
    block_kernels: tuple[int, ...] = (3, 7, 11)
    dilations: tuple[int, ...] = (1, 3, 5)


@dataclass(frozen=True)
class AudioAutoencoderConfig:
    """The mel VAE; `mel_mean` and `mel_std` normalise log-mels to about unit range, `patch` as for images.

    Attributes
    ----------
    released_processing : bool
        Process audio as the released code does (SPEC section 5.2): before encoding, centre it, scale its peak to 0.5
        and cut or pad it to `seconds`; before decoding, rescale latents that are out of range.
    vocoder : VocoderConfig or None
        Network from log-mels to waveforms; None for the approximate inverse of the log-mel.
    """

    latent_channels: int = 8
    patch: int = 1
    channels: tuple[int, ...] = (128, 256, 512)
    layers_per_block: int = 2
    norm_groups: int = 32
    scale_factor: float = 0.9228
    seconds: float = 10.24
    mel: MelConfig = field(default_factory=MelConfig)
    mel_mean: float = 0.0
    mel_std: float = 1.0
    released_processing: bool = False
    vocoder: VocoderConfig | None = None


@dataclass(frozen=True)
class TransformerConfig:
    """Size of a language model: `hidden` is the width of its feed-forward layers."""

    vocab_size: int
    positions: int
    width: int = 768
    hidden: int = 3072
    layers: int = 12
    heads: int = 12


@dataclass(frozen=True)
class TextAutoencoderConfig:
    """Optimus (SPEC section 5.3): BERT as encoder, GPT-2 as decoder.

    The last three tokens of the decoder's vocabulary are padding, beginning and end of a text.

    Attributes
    ----------
    words : tuple of str or None
        Words and punctuation marks of a model with a small vocabulary (see `WordList`); None for the vocabularies of
        BERT and GPT-2, which are files.
    greedy : bool
        Whether decoding takes the most likely token by default, or samples one.
    word_pieces : int or None
        Number of word pieces of a text that are encoded; None for the number of positions of the encoder.
    drop_words : bool
        Whether repeated words of a decoded text are removed before repeated phrases, as in CoDi; Versatile Diffusion
        removes phrases first, which differs for punctuation (SPEC_VD section 6).
    """

    latent_dim: int = 768
    scale_factor: float = 4.3108
    words: tuple[str, ...] | None = None
    greedy: bool = False
    word_pieces: int | None = None
    drop_words: bool = True
    encoder: TransformerConfig = field(default_factory=lambda: TransformerConfig(28996, 512))
    decoder: TransformerConfig = field(default_factory=lambda: TransformerConfig(50260, 1024))
