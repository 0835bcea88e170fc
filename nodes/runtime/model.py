"""CoDi's diffuser as a ComfyUI MODEL.

One model holds the networks of all modalities. With a nested latent ComfyUI's sampler packs the streams into one tensor
and, asked to by the cond `latent_shapes`, hands them to the network as a list; so every sampler denoises them together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

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

from ...codi_backend.config import CoDiConfig
from ...codi_backend.modalities import scale_factor
from ...codi_backend.models.diffuser import Diffuser
from ...codi_backend.models.diffuser.layer_plan import Stage
from ...codi_backend.models.diffuser.temporal_position import HEADS
from .alignment_options import KEY, diffuser_arguments
from .conditioning_inputs import SCHEDULE
from .context_tokens import FOR_TEXT, Shares
from .context_tokens import KEY as CONTEXTS
from .context_windows import TIME, cut_held, map_window
from .latent_packing import from_backend, join, modality_of, names_of, to_backend
from .previews import Previews
from .prompt_schedule import ScheduledTokens
from .quantised import layouts_of, mixed_precision
from .sample_wrapper import around_sampling

# Feature maps of the finest level that live at once at the peak, measured without weights in the published networks and
# in the small ones: 28.5 without alignment; 45.5 with connectors, which work on a level's upsampled output.
FEATURE_MAPS, FEATURE_MAPS_JOINT = 30, 48
# Of the tokens of a context at the widest level: keys, values and what they are made of.
TOKEN_MAPS = 4
# Tensors as large as the whole latent that sampler and guider hold in single precision.
SAMPLER_TENSORS = 10


class Attention:
    """The attention that the user chose when starting ComfyUI, with the options of the current call."""

    def __init__(self):
        self.transformer_options = {}

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        return optimized_attention(q, k, v, heads, transformer_options=self.transformer_options)


def _stop_if_interrupted(*_) -> None:
    if not torch.compiler.is_compiling():
        comfy.model_management.throw_exception_if_processing_interrupted()


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
        for module in self.diffuser.modules():
            if isinstance(module, Stage):  # a few per network, so a user who cancels need not wait for a whole step
                module.register_forward_pre_hook(_stop_if_interrupted)

    def forward(self, x, timesteps, context=None, control=None, transformer_options=None, **kwargs):
        transformer_options = transformer_options or {}
        wrappers = get_all_wrappers(WrappersMP.DIFFUSION_MODEL, transformer_options)
        executor = WrapperExecutor.new_class_executor(self._forward, self, wrappers)
        return executor.execute(x, timesteps, context, control, transformer_options, **kwargs)

    def _forward(
        self,
        x,
        timesteps,
        context,
        control,
        transformer_options,
        is_conditional=True,
        shares: Shares | None = None,
        seed: int | None = None,
        **kwargs,
    ):
        streams = [x] if torch.is_tensor(x) else x
        names = names_of([stream.shape for stream in streams], self.config)
        settings = transformer_options.get(KEY, {})
        arguments = diffuser_arguments(settings, self.config, names, timesteps, is_conditional)
        if shares is not None:
            arguments["drawn"] = shares.draw(self.diffuser.num_shared_layers, seed or 0, float(timesteps[0]))
            context = shares.given(context)
        self.attention.transformer_options = transformer_options
        try:
            latents = {name: to_backend(latent, name) for name, latent in zip(names, streams)}
            held = cut_held(settings.get("held", {}), names, transformer_options.get("context_window"))
            if arguments["alignment"] == "paper" and held:
                clean = {name: to_backend(_repeated(z, latents[name]), name) for name, z in held.items()}
                arguments["environment"] = self.diffuser.clean_environment(clean)
            noise = self.diffuser(latents, timesteps, context, predict=settings.get("predict"), **arguments)
        finally:
            self.attention.transformer_options = {}
        # Of held streams nothing is predicted: the sampler puts back what they are.
        outputs = [
            from_backend(noise[name], name) if name in noise else torch.zeros_like(stream)
            for name, stream in zip(names, streams)
        ]
        return outputs[0] if torch.is_tensor(x) else outputs


def _repeated(latent: Tensor, like: Tensor) -> Tensor:
    """A stream's latent for the batch of a call, in which several prompts may stand one after the other."""
    return latent.to(like).repeat(len(like) // len(latent), *[1] * (latent.ndim - 1))


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
        self.latent_shapes = None  # of the streams being sampled; ComfyUI 0.30 has no such attribute
        self.previews = Previews(self.codi_config)
        self.window_shapes: Sequence[Sequence[int]] = ()  # of the streams in one context window, likewise
        self.num_candidates = 1  # per result of the batch, while memory for a run of best-of-N is estimated
        networks = self.codi_config.diffuser.networks.values()
        self.latent_format.latent_channels = _ChannelCounts(tuple(network.in_channels for network in networks))
        # ComfyUI's previewer multiplies latents by a matrix, after reshaping them: ours makes an image of them.
        self.latent_format.latent_rgb_factors = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
        self.latent_format.latent_rgb_factors_reshape = self.previews.draw

    def _scaled(self, latent, power: int):
        if latent.is_nested:
            return join([self._scaled_stream(stream, power) for stream in latent.unbind()])
        if latent.ndim != 3:
            return self._scaled_stream(latent, power)
        streams = comfy.utils.unpack_latents(latent, self.latent_shapes)
        return comfy.utils.pack_latents([self._scaled_stream(stream, power) for stream in streams])[0]

    def _scaled_stream(self, latent: Tensor, power: int) -> Tensor:
        return latent * scale_factor(self.codi_config, modality_of(latent.shape, self.codi_config).name) ** power

    def process_latent_in(self, latent):
        return self._scaled(latent, 1)

    def process_latent_out(self, latent):
        return self._scaled(latent, -1)

    def extra_conds(self, **kwargs):
        out = super().extra_conds(**kwargs)
        shapes = kwargs.get("latent_shapes")
        if shapes is not None and len(shapes) > 1:
            out["latent_shapes"] = comfy.conds.CONDConstant(shapes)
            # Being different, positive and negative prompts are not batched, each needing an alignment of its own.
            out["is_conditional"] = comfy.conds.CONDConstant(kwargs.get("prompt_type") != "negative")
        if SCHEDULE in kwargs:
            out["c_crossattn"] = ScheduledTokens(
                kwargs[SCHEDULE].to(kwargs["cross_attn"]), self.codi_config, shapes or [kwargs["noise"].shape]
            )
        if self.codi_config.diffuser.contexts:
            # Of equal shapes only: the core would repeat the tokens of a mixture that are not its last context's.
            out["c_crossattn"] = comfy.conds.CONDRegular(self._tokens(shapes, **kwargs))
            out["shares"] = comfy.conds.CONDConstant(kwargs[CONTEXTS])
            out["seed"] = comfy.conds.CONDConstant(kwargs.get("seed"))
        return out

    def _tokens(self, shapes: Sequence[Sequence[int]] | None, cross_attn: Tensor, **options) -> Tensor:
        """The tokens of a conditioning, which may have others where a text alone is generated."""
        texts = [modality_of(shape, self.codi_config).name == "text" for shape in shapes or ()]
        return options[FOR_TEXT] if texts == [True] and FOR_TEXT in options else cross_attn

    def extra_conds_shapes(self, **kwargs):
        return {"c_crossattn": list(kwargs["cross_attn"].shape)} if self.codi_config.diffuser.contexts else {}

    def map_context_window_to_modalities(self, primary_indices, latent_shapes, dim):
        """For ComfyUI's context windows: a window's indices of every stream, from those of the first one."""
        return map_window(self.codi_config, primary_indices, latent_shapes, dim)

    def resize_cond_for_context_window(self, cond_key, cond_value, window, x_in, device, retain_index_list=()):
        """A condition within a window: the prompt of its time, whole even if it is as wide as a stream is long."""
        if window.dim == TIME and cond_key == "c_crossattn":
            scheduled = isinstance(cond_value, ScheduledTokens)
            return cond_value.within(window.index_list, window.total_frames) if scheduled else cond_value
        return super().resize_cond_for_context_window(
            cond_key, cond_value, window, x_in, device, retain_index_list=retain_index_list
        )

    def memory_required(self, input_shape, cond_shapes=None, **kwargs):
        batch, elements = self.num_candidates * input_shape[0], math.prod(input_shape[1:])
        known = [self.latent_shapes, self.window_shapes] if self.latent_shapes else []
        known = known if len(input_shape) == 3 else [[input_shape]]
        if any(sum(math.prod(shape[1:]) for shape in shapes) == elements for shapes in known):
            # Networks run one after the other, of a long latent on one window at a time.
            shapes = known[-1] or known[0]
            values = max(self._network_values(shape, len(shapes) > 1) for shape in shapes)
        else:  # a packed latent that is not the one being sampled: all of it counts as the most expensive kind
            networks = self.codi_config.diffuser.networks.values()
            values = elements * FEATURE_MAPS_JOINT * max(row.model_channels / row.in_channels for row in networks)
        values += self._token_values(cond_shapes or {})
        size = comfy.model_management.dtype_size(self.get_dtype_inference())
        return batch * (values * size + elements * SAMPLER_TENSORS * 4)

    def _network_values(self, shape: Sequence[int], joint: bool) -> float:
        """Numbers that live at once while a network predicts the noise of one sample of a stream."""
        modality = modality_of(shape, self.codi_config)
        network = self.codi_config.diffuser.networks[modality.network]
        maps = (FEATURE_MAPS_JOINT if joint else FEATURE_MAPS) * network.model_channels
        if modality.name == "text":  # all levels are equally fine, so the widest counts
            return maps * network.text_positions * max(network.channel_mult)
        values = maps * math.prod(shape[2:])
        if modality.name == "video":  # the bias of attention over whole clips, and what it is looked up by
            marked = [level for level in range(len(network.channel_mult)) if network.clip_attention[level]]
            values += max((2 * HEADS * (math.prod(shape[2:]) / 4**level) ** 2 for level in marked), default=0)
        return values

    def _token_values(self, cond_shapes: dict[str, Sequence[Sequence[int]]]) -> float:
        """Numbers that live at once for the tokens of one sample's contexts, where these are many."""
        networks = self.codi_config.diffuser.networks.values()
        tokens = max((shape[1] for shape in cond_shapes.get("c_crossattn", ())), default=0)
        return tokens * TOKEN_MAPS * max(row.model_channels * max(row.channel_mult) for row in networks)


def build_patcher(config: CoDiConfig, weights: dict[str, Tensor], disable_dynamic: bool = False):
    """A patcher over the diffuser of `config`, with weights by their names in `Network`."""
    mm = comfy.model_management
    count = comfy.utils.calculate_parameters(weights)
    model_config = _Config({"config": config})
    dtypes = model_config.supported_inference_dtypes
    load_device, offload_device = mm.get_torch_device(), mm.unet_offload_device()
    quantised = layouts_of(weights)
    stored = None if quantised else comfy.utils.weight_dtype(weights)
    dtype = mm.unet_dtype(model_params=count, supported_dtypes=dtypes, weight_dtype=stored)
    cast = mm.unet_manual_cast(None if quantised else dtype, load_device, dtypes)
    model_config.set_inference_dtype(dtype, cast)
    if quantised:
        model_config.custom_operations = mixed_precision(cast)
    model = Model(model_config, device=mm.unet_inital_load_device(count, dtype))
    kind = comfy.model_patcher.ModelPatcher if disable_dynamic else comfy.model_patcher.CoreModelPatcher
    patcher = kind(model, load_device=load_device, offload_device=offload_device)
    model.diffusion_model.load_state_dict(weights, assign=patcher.is_dynamic())
    patcher.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, around_sampling)
    return patcher
