"""The networks beside the diffuser, in the care of ComfyUI's memory manager."""

from __future__ import annotations

import comfy.model_management as mm
import comfy.ops
import comfy.sd
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ..codi_backend.autoencoders import AudioAutoencoder, ImageAutoencoder
from ..codi_backend.config import AudioAutoencoderConfig, ImageAutoencoderConfig, TextEncoderConfig
from ..codi_backend.prompts.text import TextEncoder

# What lives at once at the peak, measured: feature maps of an autoencoder's finest level, for the small model and for
# the published one; and for a spectrogram's way back to a waveform, numbers per sample.
FEATURE_MAPS = 7
NUMBERS_PER_SAMPLE = 48


class ManagedTextEncoder:
    """Text to prompt embeddings ``[B, 1, D]``."""

    def __init__(self, config: TextEncoderConfig, weights: dict[str, Tensor]):
        self.config = config
        device = mm.text_encoder_device()
        offload_device = mm.text_encoder_offload_device()
        # A token table in half precision would make a CPU compute everything in half precision, slowly.
        dtype = torch.float32 if mm.is_device_cpu(device) else mm.text_encoder_dtype(device)
        encoder = TextEncoder(config, operations=comfy.ops.manual_cast, dtype=dtype, device=offload_device)
        encoder.load_state_dict(weights)
        self.patcher = ModelPatcher(encoder.eval(), load_device=device, offload_device=offload_device)

    def encode(self, texts: list[str]) -> Tensor:
        tokens = self.patcher.model.tokenize(texts)
        # Per token: the residual stream, and the four times as wide layer of a feed-forward block.
        values = tokens.numel() * self.config.width * 8 + tokens.shape[0] * self.config.heads * tokens.shape[1] ** 2
        mm.load_models_gpu([self.patcher], memory_required=4 * values)
        embedding = self.patcher.model(tokens.to(self.patcher.load_device))
        return embedding.to(mm.intermediate_device(), torch.float32)


class ManagedAudioVae:
    """Sounds to latents and back."""

    def __init__(self, config: AudioAutoencoderConfig, weights: dict[str, Tensor]):
        self.config = config
        device, offload_device = mm.vae_device(), mm.vae_offload_device()
        autoencoder = AudioAutoencoder(config)
        autoencoder.load_state_dict(weights)
        # In full precision: the phases of a waveform suffer from anything less.
        autoencoder.to(offload_device, torch.float32).eval()
        self.patcher = ModelPatcher(autoencoder, load_device=device, offload_device=offload_device)

    @property
    def sample_rate(self) -> int:
        return self.config.mel.sample_rate

    def decode(self, latents: Tensor) -> Tensor:
        """``[B, C, T, F]`` -> ``[B, 1, N]`` at `sample_rate`."""
        frames = latents.shape[0] * latents.shape[2] * self.patcher.model.downscale
        maps = frames * self.config.mel.bands * FEATURE_MAPS * self.config.channels[0] / self.config.patch**2
        samples = frames * self.config.mel.hop * NUMBERS_PER_SAMPLE
        # Its layers are not ComfyUI's, so they cannot run from another device: all or nothing.
        mm.load_models_gpu([self.patcher], memory_required=4 * (maps + samples), force_full_load=True)
        waveform = self.patcher.model.decode(latents.to(self.patcher.load_device, torch.float32))
        return waveform.to(mm.intermediate_device())


class _ImageStage(nn.Module):
    """An image autoencoder with pixels in -1..1, as ComfyUI's VAE calls what it wraps."""

    def __init__(self, autoencoder: ImageAutoencoder):
        super().__init__()
        self.autoencoder = autoencoder

    def encode(self, pixels: Tensor) -> Tensor:
        return self.autoencoder.encode((pixels + 1) / 2)

    def decode(self, latents: Tensor) -> Tensor:
        return self.autoencoder.reconstruct(latents)


def image_vae(config: ImageAutoencoderConfig, weights: dict[str, Tensor]) -> comfy.sd.VAE:
    """The image autoencoder as a native VAE, so that the stock VAE nodes work with it, tiled decoding too.

    ComfyUI's VAE builds its own network from a state dict, and knows neither the sizes nor the folded pixels of the
    small model. So it is made around its one network without layers, and ours takes that one's place.
    """
    vae = comfy.sd.VAE(sd={"pixel_space_vae": torch.tensor(1.0)})
    autoencoder = ImageAutoencoder(config)
    autoencoder.load_state_dict(weights)
    vae.vae_dtype = mm.vae_dtype(vae.device, [torch.float32])
    vae.first_stage_model = _ImageStage(autoencoder).to(mm.vae_offload_device(), vae.vae_dtype).eval()
    vae.patcher = ModelPatcher(vae.first_stage_model, load_device=vae.device, offload_device=mm.vae_offload_device())
    vae.disable_offload = True
    vae.size = None
    vae.latent_channels = config.latent_channels
    vae.downscale_ratio = vae.upscale_ratio = autoencoder.downscale
    per_pixel = FEATURE_MAPS * config.channels[0] / config.patch**2
    per_value = per_pixel * autoencoder.downscale**2

    def memory_used_decode(shape, dtype):
        return shape[0] * shape[-1] * shape[-2] * per_value * mm.dtype_size(dtype)

    def memory_used_encode(shape, dtype):
        return shape[0] * shape[-1] * shape[-2] * per_pixel * mm.dtype_size(dtype)

    vae.memory_used_decode, vae.memory_used_encode = memory_used_decode, memory_used_encode
    return vae
