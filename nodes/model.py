"""CoDi's diffuser as a ComfyUI MODEL.

One model holds the networks of all modalities. With a nested latent ComfyUI's sampler packs the streams into one tensor
and, asked to by the cond `latent_shapes`, hands them to the network as a list; so every sampler denoises them together.
"""

from __future__ import annotations

import comfy.conds
import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.supported_models_base
import comfy.utils
import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy.patcher_extension import WrapperExecutor, WrappersMP, get_all_wrappers
from torch import Tensor, nn

from ..codi_backend.config import CoDiConfig
from ..codi_backend.diffuser import Diffuser
from .streams import by_modality, from_backend, join, modality_of, scale_factor, to_backend

# Key in `transformer_options` whose dict goes to the diffuser as keyword arguments (alignment, strength).
OPTIONS = "codi"
# What ComfyUI calls the negative prompt's share of a batch in `cond_or_uncond`.
UNCONDITIONAL = 1

# Feature maps of the finest level that live at once at the peak, for the image network: 28, measured in the small model
# and, without weights, in the published one. The audio network needs half of that.
ACTIVATIONS = 32


class Attention:
    """The attention that the user chose when starting ComfyUI, told about the options of the call under way."""

    def __init__(self):
        self.transformer_options = {}

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        return optimized_attention(q, k, v, heads, transformer_options=self.transformer_options)


class Network(nn.Module):
    """Puts ComfyUI's calling convention on a `Diffuser`: a tensor or a list of tensors in, the same out."""

    def __init__(self, config: CoDiConfig, dtype=None, device=None, operations=None):
        super().__init__()
        self.config = config
        self.dtype = dtype
        self.attention = Attention()
        self.diffuser = Diffuser(
            config.diffuser, operations=operations, dtype=dtype, device=device, attention=self.attention
        )

    def forward(self, x, timesteps, context=None, control=None, transformer_options=None, **kwargs):
        transformer_options = transformer_options or {}
        wrappers = get_all_wrappers(WrappersMP.DIFFUSION_MODEL, transformer_options)
        executor = WrapperExecutor.new_class_executor(self._forward, self, wrappers)
        return executor.execute(x, timesteps, context, control, transformer_options, **kwargs)

    def _forward(self, x, timesteps, context, control, transformer_options, **kwargs):
        streams = by_modality([x] if torch.is_tensor(x) else x, self.config)
        latents = {name: to_backend(latent, name) for name, latent in streams.items()}
        self.attention.transformer_options = transformer_options
        try:
            noise = self._predict(latents, timesteps, context, transformer_options)
        finally:
            self.attention.transformer_options = {}
        outputs = [from_backend(noise[name], name) for name in streams]
        return outputs[0] if torch.is_tensor(x) else outputs

    def _predict(self, latents, timesteps, context, transformer_options):
        settings = transformer_options.get(OPTIONS, {})
        kinds = transformer_options.get("cond_or_uncond", [0])
        if settings.get("alignment") == "released" or UNCONDITIONAL not in kinds:
            return self.diffuser(latents, timesteps, context, **settings)
        # The unconditional prediction hears no other stream: guidance then leads towards what the others say, too.
        inputs = [timesteps, context, *latents.values()]
        chunks = []
        for kind, (t, c, *xs) in zip(kinds, zip(*(value.chunk(len(kinds)) for value in inputs))):
            quiet = {"alignment": "none"} if kind == UNCONDITIONAL else {}
            chunks.append(self.diffuser(dict(zip(latents, xs)), t, c, **settings | quiet))
        return {name: torch.cat([chunk[name] for chunk in chunks]) for name in latents}


class _ChannelCounts(int):
    """The channels of the first stream; equal to those of any other too.

    Before sampling, ComfyUI compares the channels of an empty latent with those of the model's latent format, and cuts
    or repeats them where they differ. A model of several latent spaces must not lose channels of a lone stream so.
    """

    def __new__(cls, counts: tuple[int, ...]):
        self = super().__new__(cls, counts[0])
        self.counts = tuple(counts)
        return self

    def __eq__(self, other):
        return other in self.counts

    def __ne__(self, other):
        return other not in self.counts

    __hash__ = int.__hash__

    def __reduce__(self):
        return _ChannelCounts, (self.counts,)


class _LatentFormat(comfy.latent_formats.LatentFormat):
    """Identity: streams have scale factors of their own, which `Model` applies."""


class _Config(comfy.supported_models_base.BASE):
    unet_extra_config = {}
    sampling_settings = {"beta_schedule": "linear", "linear_start": 0.00085, "linear_end": 0.012, "timesteps": 1000}
    latent_format = _LatentFormat
    supported_inference_dtypes = [torch.float16, torch.bfloat16, torch.float32]


class Model(comfy.model_base.BaseModel):
    """CoDi among ComfyUI's diffusion models: predicts noise on Stable Diffusion's schedule."""

    def __init__(self, model_config: _Config, device=None):
        super().__init__(model_config, comfy.model_base.ModelType.EPS, device=device, unet_model=Network)
        self.codi_config: CoDiConfig = model_config.unet_config["config"]
        networks = self.codi_config.diffuser.networks.values()
        self.latent_format.latent_channels = _ChannelCounts(tuple(network.in_channels for network in networks))

    def _scaled(self, latent, power: int):
        if latent.is_nested:
            return join([self._scaled_stream(stream, power) for stream in latent.unbind()])
        streams = comfy.utils.unpack_latents(latent, self.latent_shapes or [latent.shape])
        streams = [self._scaled_stream(stream, power) for stream in streams]
        return comfy.utils.pack_latents(streams)[0] if len(streams) > 1 else streams[0]

    def _scaled_stream(self, latent: Tensor, power: int) -> Tensor:
        return latent * scale_factor(modality_of(latent, self.codi_config).name, self.codi_config) ** power

    def process_latent_in(self, latent):
        return self._scaled(latent, 1)

    def process_latent_out(self, latent):
        return self._scaled(latent, -1)

    def extra_conds(self, **kwargs):
        out = super().extra_conds(**kwargs)
        self._check_prompt(kwargs.get("cross_attn"), kwargs.get("prompt_type", "positive"))
        shapes = kwargs.get("latent_shapes")
        if shapes is not None and len(shapes) > 1:
            out["latent_shapes"] = comfy.conds.CONDConstant(shapes)
        return out

    def _check_prompt(self, embedding: Tensor | None, name: str) -> None:
        width = next(iter(self.codi_config.diffuser.networks.values())).context_dim
        if embedding is None or embedding.shape[-1] != width:
            found = "nothing" if embedding is None else f"an embedding of width {embedding.shape[-1]}"
            raise ValueError(
                f"{name}: the model {self.codi_config.name!r} takes prompts of width {width} but got {found}; "
                "encode the prompt with the encoder that was loaded with this model."
            )

    def memory_required(self, input_shape, cond_shapes=None, **kwargs):
        # A packed latent does not say which streams it holds, so all of it counts as the most expensive kind.
        elements = torch.Size(input_shape).numel()
        size = comfy.model_management.dtype_size(self.get_dtype_inference())
        networks = self.codi_config.diffuser.networks.values()
        return elements * size * ACTIVATIONS * max(row.model_channels / row.in_channels for row in networks)


def build_patcher(config: CoDiConfig, weights: dict[str, Tensor], disable_dynamic: bool = False):
    """A patcher over the diffuser of `config`, with weights by their names in `Network`."""
    mm = comfy.model_management
    count = comfy.utils.calculate_parameters(weights)
    model_config = _Config({"config": config})
    dtypes = model_config.supported_inference_dtypes
    load_device, offload_device = mm.get_torch_device(), mm.unet_offload_device()
    stored = comfy.utils.weight_dtype(weights)
    dtype = mm.unet_dtype(model_params=count, supported_dtypes=dtypes, weight_dtype=stored)
    model_config.set_inference_dtype(dtype, mm.unet_manual_cast(dtype, load_device, dtypes))
    model = Model(model_config, device=mm.unet_inital_load_device(count, dtype))
    kind = comfy.model_patcher.ModelPatcher if disable_dynamic else comfy.model_patcher.CoreModelPatcher
    patcher = kind(model, load_device=load_device, offload_device=offload_device)
    model.diffusion_model.load_state_dict(weights, assign=patcher.is_dynamic())
    return patcher
