"""The autoencoders under ComfyUI's memory manager."""

from __future__ import annotations

import math
from itertools import accumulate
from operator import mul
from typing import Any

import comfy.model_management as mm
import comfy.ops
import comfy.sd
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ...codi_backend.checkpoints.autoencoder_names import to_reference
from ...codi_backend.checkpoints.native import resolve
from ...codi_backend.config import AudioAutoencoderConfig, ImageAutoencoderConfig, TextAutoencoderConfig
from ...codi_backend.modalities import audio_steps, downscale, step_samples
from ...codi_backend.models.autoencoders import AudioAutoencoder, ImageAutoencoder, TextAutoencoder, resample
from ...codi_backend.models.autoencoders.vocabulary import find_vocabulary
from .patchers import Managed, Weights, finished, in_batches

# Peak memory as measured for the small model and the published one: feature maps of an autoencoder's finest level;
# numbers per frequency of a spectrogram, and per sample of the inversion of a log-mel; feature maps of the vocoder's
# largest level.
ENCODER_MAPS, DECODER_MAPS = 6.2, 8.5
SPECTROGRAM, INVERSION, VOCODER_MAPS = 6, 46, 14
# Texts per batch.
TEXT_BATCH = 64


class ManagedAudioVae(Managed):
    """The audio autoencoder.

    Parameters
    ----------
    config : AudioAutoencoderConfig
    weights : Weights
    multiple : int
        The number of latent steps is a multiple of this, as the audio network requires.
    """

    config: AudioAutoencoderConfig

    def __init__(self, config: AudioAutoencoderConfig, weights: Weights, multiple: int):
        super().__init__(config, weights)
        self._multiple = multiple

    def _build(self) -> ModelPatcher:
        with torch.device("meta"):
            autoencoder = AudioAutoencoder(self.config)
        # Single precision: lower precision distorts the phases of a waveform.
        autoencoder.load_state_dict(self._weights.read(torch.float32), assign=True)
        return ModelPatcher(autoencoder.eval(), load_device=mm.vae_device(), offload_device=mm.vae_offload_device())

    @property
    def sample_rate(self) -> int:
        return self.config.mel.sample_rate

    def steps(self, seconds: float) -> int:
        """Steps of the latent of audio of this length, by the rule of `codi_backend.modalities`."""
        return audio_steps(round(seconds * self.sample_rate), self.config, self._multiple)

    def seconds(self, steps: int) -> float:
        """The length of so many steps in seconds."""
        return steps * step_samples(self.config) / self.sample_rate

    def encode(self, waveform: Tensor, sample_rate: int, steps: int | None = None) -> Tensor:
        """Audio ``[B, C, N]`` in -1..1 -> ``[B, C, T, F]``. The channels are averaged.

        With `steps`, longer audio is cut to so many steps of the latent, and shorter audio is padded with silence.
        """
        if steps is not None:  # resample only what is encoded
            waveform = waveform[..., : math.ceil(self.seconds(steps) * sample_rate)]
        mono = resample(waveform.mean(1, keepdim=True).float(), sample_rate, self.sample_rate)
        return torch.cat([self._encode(some, steps) for some in in_batches(mono, 1)])

    def _encode(self, mono: Tensor, steps: int | None) -> Tensor:
        config = self.config
        samples = config.seconds * self.sample_rate if config.released_processing else mono.shape[-1]
        frames = (steps * step_samples(config) if steps else samples) / config.mel.hop
        spectrogram = frames * (config.mel.n_fft // 2 + 1) * SPECTROGRAM
        autoencoder = self._load(max(spectrogram, self._feature_map(frames) * ENCODER_MAPS))
        return finished(autoencoder.encode(mono.to(self.patcher.load_device), steps=steps))

    def decode(self, latents: Tensor) -> Tensor:
        """``[B, C, T, F]`` -> ``[B, 1, N]`` at `sample_rate`."""
        return torch.cat([self._decode(some) for some in in_batches(latents, 1)])

    def _decode(self, latents: Tensor) -> Tensor:
        frames = latents.shape[2] * downscale(self.config)
        values = max(self._feature_map(frames) * DECODER_MAPS, frames * self._waveform_values())
        return finished(self._load(values).decode(latents.to(self.patcher.load_device, torch.float32)))

    def _feature_map(self, frames: float) -> float:
        """Numbers in a feature map of the finest level, all channels together."""
        return frames * self.config.mel.bands * self.config.channels[0] / self.config.patch**2

    def _waveform_values(self) -> float:
        """Numbers per frame at the peak of the inversion of a log-mel to a waveform."""
        vocoder = self.config.vocoder
        if vocoder is None:
            return self.config.mel.hop * INVERSION
        rates = accumulate(vocoder.rates, mul)
        return VOCODER_MAPS * max(vocoder.channels / 2**level * rate for level, rate in enumerate(rates, start=1))


class ManagedTextVae(Managed):
    """The text autoencoder. The vocabularies of a model that needs them are read from beside its files."""

    config: TextAutoencoderConfig

    def _build(self) -> ModelPatcher:
        vocabulary = find_vocabulary(file.parent for file in resolve(self._weights.source))
        if self.config.words is None and vocabulary is None:
            raise ValueError(
                "text_vae: the text autoencoder has no vocabularies; put vocab.txt of BERT (bert-base-cased) and "
                "vocab.json of GPT-2 (gpt2) beside the checkpoint and queue again."
            )
        with torch.device("meta"):
            autoencoder = TextAutoencoder(self.config, vocabulary=vocabulary, operations=comfy.ops.manual_cast)
        # Single precision: decoding compares close token probabilities at every step.
        autoencoder.load_state_dict(self._weights.read(torch.float32), assign=True)
        return ModelPatcher(autoencoder.eval(), load_device=mm.vae_device(), offload_device=mm.vae_offload_device())

    def encode(self, texts: list[str]) -> Tensor:
        """Texts -> ``[B, D, 1, 1]``."""
        return torch.cat([self._encode(some) for some in in_batches(texts, TEXT_BATCH)])[:, :, None, None]

    def _encode(self, texts: list[str]) -> Tensor:
        ids = self.patcher.model.vocabulary.tokenize(texts)
        size = self.config.encoder
        autoencoder = self._load(ids.numel() * (6 * size.width + 2 * size.hidden))
        return finished(autoencoder.posterior(ids.to(self.patcher.load_device))[0])

    def decode(self, latents: Tensor, *, max_tokens: int = 30, **options: Any) -> list[str]:
        """``[B, D, 1, 1]`` -> texts. Stops between tokens when the user interrupts.

        `max_tokens` and `options` are those of `TextAutoencoder.decode`.
        """
        size = self.config.decoder
        texts = []
        for some in in_batches(latents.flatten(1).float(), TEXT_BATCH):
            # Keys and values of all tokens so far, twice while they grow by one, and the logits.
            autoencoder = self._load(len(some) * (4 * size.layers * size.width * max_tokens + 2 * size.vocab_size))
            some = some.to(self.patcher.load_device)
            texts += autoencoder.decode(some, max_tokens=max_tokens, progress=_interruptible, **options)
        return texts


def _interruptible(*progress: int) -> None:
    mm.throw_exception_if_processing_interrupted()


class _ImageStage(nn.Module):
    """An image autoencoder with pixels in -1..1, the interface of ComfyUI's VAE."""

    def __init__(self, autoencoder: ImageAutoencoder):
        super().__init__()
        self.autoencoder = autoencoder

    def encode(self, pixels: Tensor) -> Tensor:
        return self.autoencoder.encode((pixels + 1) / 2)

    def decode(self, latents: Tensor) -> Tensor:
        return self.autoencoder.reconstruct(latents)


class ImageVae(comfy.sd.VAE):
    """The image autoencoder as a native VAE, for the stock VAE nodes, tiled decoding included.

    The VAE is built at the first access to an attribute that is not yet set.

    Attributes
    ----------
    latent_channels : int
    frames : int
    frame_rate : float
        Number of frames and frames per second of the videos of the model's training.
    """

    def __init__(self, config: ImageAutoencoderConfig, weights: Weights):
        self.latent_channels = config.latent_channels
        self.frames, self.frame_rate = config.frames, config.frame_rate
        self._source = config, weights

    def __getattr__(self, name: str):
        if name.startswith("__") or "_source" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        config, weights = self._source
        # ComfyUI's own network runs partly loaded, but supports neither folded pixels nor other groups than 32.
        build = _native_vae if config.patch == 1 and config.norm_groups == 32 else _own_vae
        built = vars(build(config, weights))
        del self._source
        self.__dict__.update(built)
        return getattr(self, name)


def _native_vae(config: ImageAutoencoderConfig, weights: Weights) -> comfy.sd.VAE:
    width = config.channels[0]
    ddconfig = {
        "double_z": True,
        "z_channels": config.latent_channels,
        "resolution": config.image_size,
        "in_channels": 3,
        "out_ch": 3,
        "ch": width,
        "ch_mult": [channels // width for channels in config.channels],
        "num_res_blocks": config.layers_per_block,
        "attn_resolutions": [],
        "dropout": 0.0,
    }
    params = {"ddconfig": ddconfig, "embed_dim": config.latent_channels}
    vae = comfy.sd.VAE(sd=to_reference(config, weights.read()), config={"params": params})
    vae.downscale_ratio = vae.upscale_ratio = downscale(config)
    vae.latent_channels = config.latent_channels
    return vae


def _own_vae(config: ImageAutoencoderConfig, weights: Weights) -> comfy.sd.VAE:
    # ComfyUI's VAE builds its network from a state dict. It is built with its one network without layers, which is then
    # replaced by ours.
    vae = comfy.sd.VAE(sd={"pixel_space_vae": torch.tensor(1.0)})
    with torch.device("meta"):
        autoencoder = ImageAutoencoder(config)
    vae.vae_dtype = mm.vae_dtype(vae.device, [torch.float32])
    autoencoder.load_state_dict(weights.read(vae.vae_dtype), assign=True)
    vae.first_stage_model = _ImageStage(autoencoder).eval()
    vae.patcher = ModelPatcher(vae.first_stage_model, load_device=vae.device, offload_device=mm.vae_offload_device())
    vae.disable_offload = True
    vae.size = None
    vae.latent_channels = config.latent_channels
    vae.downscale_ratio = vae.upscale_ratio = autoencoder.downscale
    per_pixel = config.channels[0] / config.patch**2

    def memory_used_decode(shape, dtype):
        return shape[-1] * shape[-2] * autoencoder.downscale**2 * per_pixel * DECODER_MAPS * mm.dtype_size(dtype)

    def memory_used_encode(shape, dtype):
        return shape[-1] * shape[-2] * per_pixel * ENCODER_MAPS * mm.dtype_size(dtype)

    vae.memory_used_decode, vae.memory_used_encode = memory_used_decode, memory_used_encode
    return vae
