"""What the nodes rely on in ComfyUI beyond what their source names, and how any of it is found in ComfyUI.

The tables here are written by hand. What can be read from the source of the nodes is in `pack_references`.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from functools import cache
from importlib import import_module
from inspect import Parameter, Signature
from typing import Any

import pytest
from host.pack_references import Call

# Methods that the nodes override: ComfyUI has to have them, or nobody calls ours.
OVERRIDES = {
    "comfy.model_base.BaseModel": (
        "process_latent_in",
        "process_latent_out",
        "extra_conds",
        "extra_conds_shapes",
        "memory_required",
        "resize_cond_for_context_window",
    ),
    "comfy.conds.CONDCrossAttn": ("_copy_with",),
    "comfy.samplers.CFGGuider": ("sample", "predict_noise"),
    "comfy.samplers.Sampler": ("sample",),
    "comfy.ops.manual_cast.Embedding": ("forward",),
    "comfy_api.latest.ComfyExtension": ("on_load", "get_node_list"),
    "comfy_api.latest.io.ComfyNode": ("define_schema", "execute", "fingerprint_inputs"),
}

# Calls in the nodes of methods of ComfyUI's objects: as they are written, and the method.
CALLS_OF_OBJECTS = {
    "add_wrapper_with_key": "comfy.model_patcher.ModelPatcher.add_wrapper_with_key",
    "decode_latent_to_preview_image": "latent_preview.LatentPreviewer.decode_latent_to_preview_image",
    "executor": "comfy.samplers.CFGGuider.outer_sample",
    "get_attachment": "comfy.model_patcher.ModelPatcher.get_attachment",
    "get_model_object": "comfy.model_patcher.ModelPatcher.get_model_object",
    "guider.sample": "comfy.samplers.CFGGuider.sample",
    "guider.set_conds": "comfy.samplers.CFGGuider.set_conds",
    "model_wrap": "comfy.samplers.CFGGuider.outer_predict_noise",
    "sampler.sample": "comfy.samplers.KSAMPLER.sample",
    "sampling.noise_scaling": "comfy.model_sampling.EPS.noise_scaling",
    "scale_latent_inpaint": "comfy.model_base.BaseModel.scale_latent_inpaint",
    "set_attachments": "comfy.model_patcher.ModelPatcher.set_attachments",
    "set_inference_dtype": "comfy.supported_models_base.BASE.set_inference_dtype",
    "unpatch_hooks": "comfy.model_patcher.ModelPatcher.unpatch_hooks",
}

# Functions of the nodes that stand in for one of ComfyUI's without extending its class: file, function, the original.
STAND_INS = (
    ("runtime/coupled_guider.py", "CoupledGuider.sample", "comfy.samplers.CFGGuider.sample"),
    ("runtime/coupled_guider.py", "_Capture.sample", "comfy.samplers.KSAMPLER.sample"),
    ("samplers/best_of_n.py", "BestOfN.sample", "comfy.samplers.KSAMPLER.sample"),
    ("runtime/sample_wrapper.py", "around_sampling", "comfy.samplers.CFGGuider.outer_sample"),
)

_DENOISER, _PREVIEWS = "runtime/coupled_denoiser.py", "runtime/coupled_previews.py"
# Functions of the nodes that ComfyUI calls: where, by what name, and which of ours.
CALLED_BY_HOST = (
    (
        "comfy.context_windows.WindowingState.prepare_window",
        "model.map_context_window_to_modalities",
        "runtime/model.py",
        "Model.map_context_window_to_modalities",
    ),
    ("comfy.model_base.BaseModel._apply_model", "self.diffusion_model", "runtime/model.py", "Network.forward"),
    (
        "comfy.samplers.KSamplerX0Inpaint.__call__",
        "inner_model",
        "runtime/coupled_denoiser.py",
        "JointDenoiser.__call__",
    ),
    ("comfy.samplers.KSAMPLER.sample", ".noise_scaling", "runtime/coupled_denoiser.py", "JointDenoiser._noise_scaling"),
    ("comfy.sd.VAE.decode", "self.memory_used_decode", "runtime/vae_patchers.py", "_own_vae.memory_used_decode"),
    ("comfy.sd.VAE.encode", "self.memory_used_encode", "runtime/vae_patchers.py", "_own_vae.memory_used_encode"),
    ("comfy.model_patcher.ModelPatcher", "self.cached_patcher_init[0]", "loaders.py", "load_diffuser"),
    ("latent_preview.Latent2RGBPreviewer", ".latent_rgb_factors_reshape", "runtime/previews.py", "Previews.draw"),
    ("latent_preview.Latent2RGBPreviewer", ".latent_rgb_factors_reshape", _PREVIEWS, "StreamImages.draw"),
)

# Attributes of ComfyUI's objects that the nodes read or set.
FIELDS = {
    "comfy.clip_vision.Output": ("__setitem__",),
    "comfy.latent_formats.LatentFormat": (
        "latent_channels",
        "latent_dimensions",
        "latent_rgb_factors",
        "latent_rgb_factors_reshape",
    ),
    "comfy.model_base.BaseModel": (
        "current_patcher",
        "diffusion_model",
        "get_dtype_inference",
        "latent_format",
        "model_sampling",
        "scale_latent_inpaint",
    ),
    "comfy.model_patcher.ModelPatcher": (
        "add_wrapper_with_key",
        "attachments",
        "backup",
        "cached_patcher_init",
        "clone",
        "current_loaded_device",
        "get_attachment",
        "get_model_object",
        "get_nested_additional_models",
        "hook_backup",
        "is_dynamic",
        "load_device",
        "model",
        "model_dtype",
        "model_options",
        "model_size",
        "set_attachments",
        "unpatch_hooks",
    ),
    "comfy.model_sampling.CONST": ("noise_scaling",),
    "comfy.model_sampling.ModelSamplingDiscrete": ("percent_to_sigma", "sigma_data", "sigma_max", "timestep"),
    "comfy.nested_tensor.NestedTensor": ("is_nested", "unbind"),
    "comfy.patcher_extension.WrapperExecutor": ("class_obj", "execute"),
    "comfy.samplers.CFGGuider": (
        "cfg",
        "conds",
        "inner_model",
        "inner_set_conds",
        "loaded_models",
        "model_options",
        "model_patcher",
        "original_conds",
        "set_cfg",
        "set_conds",
    ),
    "comfy.samplers.KSAMPLER": ("inpaint_options",),
    "comfy.samplers.KSamplerX0Inpaint": ("latent_image", "noise"),
    "comfy.sd.VAE": (
        "device",
        "disable_offload",
        "downscale_ratio",
        "encode",
        "first_stage_model",
        "latent_channels",
        "memory_used_decode",
        "memory_used_encode",
        "patcher",
        "size",
        "upscale_ratio",
        "vae_dtype",
    ),
    "comfy.supported_models_base.BASE": (
        "latent_format",
        "sampling_settings",
        "set_inference_dtype",
        "supported_inference_dtypes",
        "unet_config",
        "unet_extra_config",
    ),
    "comfy_api.input.CurveInput": ("interp", "points"),
    "comfy_api.latest.InputImpl.VideoFromComponents": ("get_components",),
    "comfy_api.latest.Types.VideoComponents": ("audio", "frame_rate", "images"),
    "comfy_api.latest.io.ComfyNode": ("hidden",),
}

# Names that ComfyUI gives and takes in dicts, and where.
KEYS = {
    "comfy.clip_vision.ClipVisionModel.encode_image": (
        "last_hidden_state",
        "penultimate_hidden_states",
        "image_embeds",
        "image_sizes",
    ),
    "comfy.model_base.BaseModel._apply_model": ("latent_shapes",),
    "comfy.model_base.BaseModel.extra_conds": ("cross_attn", "c_crossattn"),
    "comfy.samplers.CFGGuider.inner_sample": ("model_options", "transformer_options", "sample_sigmas", "seed"),
    "comfy.samplers.CFGGuider.predict_noise": ("positive", "negative"),
    "comfy.samplers.KSamplerX0Inpaint.__call__": ("denoise_mask_function",),
    "comfy.samplers.cfg_function": (
        "sampler_cfg_function",
        "sampler_post_cfg_function",
        "cond",
        "uncond",
        "cond_scale",
        "denoised",
        "cond_denoised",
        "uncond_denoised",
    ),
    "comfy.samplers.encode_model_conds": ("prompt_type", "model_conds"),
    "comfy.samplers.sampling_function": ("disable_cfg1_optimization",),
    "comfy.sd.VAE": ("ddconfig", "embed_dim", "params", "pixel_space_vae"),
    "comfy.samplers.calc_cond_batch": ("context_handler",),
}

# Objects that exist only while a server runs, by their class.
INSTANCES = {"server.PromptServer.instance": "server.PromptServer"}


class Drift(pytest.fail.Exception):
    """ComfyUI lacks something that the nodes rely on; the message, which is all that pytest shows, says what."""

    def __init__(self, message: str):
        super().__init__(message, pytrace=False)


def find(name: str) -> Any:
    """An object of ComfyUI by its dotted name; None for an attribute that only an object of a class has.

    Raises
    ------
    Drift
        If there is none.
    """
    for instance, kind in INSTANCES.items():
        if name.startswith(instance):
            name = kind + name.removeprefix(instance)
    found, rest = _module(name)
    for i, part in enumerate(rest):
        owner = found
        try:
            found = getattr(owner, part)
        except AttributeError:
            if inspect.isclass(owner) and part in fields_of(owner) and part == rest[-1]:
                return None
            raise Drift(f"{name.removesuffix('.'.join(['', *rest[i:]]))} has no {part}") from None
    return found


def _module(name: str) -> tuple[Any, list[str]]:
    """The longest part of a dotted name that can be imported, and the rest of the parts."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        module = ".".join(parts[:end])
        try:
            return import_module(module), parts[end:]
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise Drift(f"{module} cannot be imported: {error}") from error
    raise Drift(f"there is no module {parts[0]}")


@cache
def fields_of(kind: type) -> set[str]:
    """Everything that an object of a class may have: what the class has, and what its methods use of ``self``."""
    names = set(dir(kind))
    for one in kind.__mro__:
        names |= set(getattr(one, "__annotations__", ()))
        if one.__module__ != "builtins":
            names |= {
                node.attr
                for node in ast.walk(source_of(one))
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
            }
    return names


@cache
def source_of(found: Any) -> ast.Module:
    """The syntax tree of a class or function; an empty one if it has no source."""
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(found)))
    except (OSError, TypeError):
        return ast.Module([], [])


def check_call(name: str, call: Call) -> None:
    """Raise `Drift` if something of ComfyUI's does not take the arguments of a call."""
    owner, found = find(name.rpartition(".")[0]), find(name)
    signature = inspect.signature(found)
    of_class = inspect.isclass(owner) and inspect.isfunction(inspect.getattr_static(owner, name.rpartition(".")[2]))
    positional = [None] * (call.positional + of_class)
    try:
        bind = signature.bind if call.exact else signature.bind_partial
        bind(*positional, **dict.fromkeys(call.keywords))
    except TypeError as error:
        raise Drift(f"{call.place} calls {name}{signature}: {error}") from None


def check_stand_in(name: str, ours: Signature, place: str) -> None:
    """Raise `Drift` if a function of ours does not take every call that one of ComfyUI's takes."""
    theirs = inspect.signature(find(name)).parameters.values()
    theirs = [one for one in theirs if one.name not in ("self", "cls")]
    own = [one for one in ours.parameters.values() if one.kind is Parameter.POSITIONAL_OR_KEYWORD]
    if place.endswith("around_sampling"):  # a wrapper gets what calls the original first
        own = own[1:]
    any_name = any(one.kind is Parameter.VAR_KEYWORD for one in ours.parameters.values())
    named = [one for one in theirs if one.kind in (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)]
    lacking = [one.name for one in named if one.name not in ours.parameters and not any_name]
    if lacking or (any(one.kind is Parameter.VAR_KEYWORD for one in theirs) and not any_name):
        raise Drift(f"{name} takes {', '.join(lacking) or 'any keyword'}, but {place} does not")
    order = [one.name for one in named if one.kind is Parameter.POSITIONAL_OR_KEYWORD]
    if any(one.name != name for one, name in zip(own, order)):
        raise Drift(f"{name} takes ({', '.join(order)}), in another order than {place}")
    known = {one.name for one in named}
    if extra := [one.name for one in own if one.default is Parameter.empty and one.name not in known]:
        raise Drift(f"{name} gives no {', '.join(extra)}, but {place} needs it")


def check_called(where: str, called: str, ours: Signature, place: str) -> None:
    """Raise `Drift` if ComfyUI does not call a function of ours in a place, or with arguments that it does not take."""
    calls = [
        node
        for node in ast.walk(source_of(find(where)))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(called)
    ]
    if not calls:
        raise Drift(f"{where} does not call {called}, in whose place {place} stands")
    for call in calls:
        positional = [None for one in call.args if not isinstance(one, ast.Starred)]
        spread = len(positional) < len(call.args) or any(one.arg is None for one in call.keywords)
        try:
            (ours.bind_partial if spread else ours.bind)(
                *positional, **{one.arg: None for one in call.keywords if one.arg}
            )
        except TypeError as error:
            raise Drift(f"{where} calls {ast.unparse(call)}, but {place} does not take it: {error}") from None


def check_key(where: str, key: str) -> None:
    """Raise `Drift` if a function of ComfyUI's does not mention the key of a dict."""
    tree = source_of(find(where))
    strings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    keywords = {node.arg for node in ast.walk(tree) if isinstance(node, (ast.keyword, ast.arg))}
    if key not in strings | keywords:
        raise Drift(f"{where} does not know the key {key}")
