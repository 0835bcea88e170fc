"""ComfyUI's own diffusion models, made small, with random weights; and prompts and guiders for them."""

from __future__ import annotations

import copy
from typing import Any

import torch

PROMPT_TOKENS = 5
_UNET = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 32,
    "num_res_blocks": [1, 1],
    "channel_mult": [1, 2],
    "transformer_depth": [1, 1],
    "transformer_depth_output": [1, 1, 1, 1],
    "transformer_depth_middle": 1,
    "use_spatial_transformer": True,
    "use_temporal_attention": False,
    "legacy": False,
}
_POOLED, _SIZE_EMBEDDINGS = 16, 6 * 256  # SDXL's vector is the pooled prompt and six numbers, 256 each
_CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "sd15": ("SD15", _UNET | {"context_dim": 16, "use_linear_in_transformer": False, "adm_in_channels": None}),
    "unclip_l": (
        "SD21UnclipL",
        _UNET
        | {"model_channels": 64, "context_dim": 16, "use_linear_in_transformer": True, "num_classes": "sequential"}
        | {"adm_in_channels": 1536},
    ),
    "sdxl": (
        "SDXL",
        _UNET
        | {"model_channels": 64, "context_dim": 24, "use_linear_in_transformer": True, "num_classes": "sequential"}
        | {"adm_in_channels": _POOLED + _SIZE_EMBEDDINGS},
    ),
    "stable_audio": (
        "StableAudio",
        {"audio_model": "dit1.0", "io_channels": 64, "embed_dim": 128, "depth": 1, "num_heads": 2}
        | {"project_cond_tokens": True},
    ),
    "ace": (
        "ACEStep",
        {"audio_model": "ace", "num_layers": 1, "attention_head_dim": 16, "num_attention_heads": 2, "mlp_ratio": 1.0}
        | {"text_embedding_dim": 16, "lyric_encoder_vocab_size": 8, "max_width": 64}
        | {"ssl_latent_dims": [8, 8]},
    ),
    "flux": (
        "Flux",
        {"image_model": "flux", "in_channels": 16, "out_channels": 16, "vec_in_dim": 8, "context_in_dim": 16}
        | {"hidden_size": 32, "mlp_ratio": 1.0, "num_heads": 2, "depth": 1, "depth_single_blocks": 1}
        | {"axes_dim": [4, 6, 6], "theta": 10000, "patch_size": 2, "qkv_bias": True, "guidance_embed": True}
        | {"txt_ids_dims": []},
    ),
    "ltxav": (
        "LTXAV",
        {"image_model": "ltxav", "cross_attention_dim": 32, "audio_cross_attention_dim": 16}
        | {"attention_head_dim": 16, "audio_attention_head_dim": 8}
        | {"num_attention_heads": 2, "audio_num_attention_heads": 2, "caption_channels": 16, "num_layers": 1}
        | {"connector_attention_head_dim": 8, "connector_num_attention_heads": 2, "connector_num_layers": 1},
    ),
    "h3": (
        "MiniMaxH3",
        {"image_model": "minimax_h3", "hidden_size": 32, "num_layers": 1, "token_refiner_num_layers": 1}
        | {"num_attention_heads": 1, "ffn_hidden_size": 32, "text_dim": 16}
        | {"time_embed_hidden_size": 16, "time_embed_dim": 16},
    ),
}  # fmt: skip
SHAPES = {
    "sd15": (4, 8, 8),
    "unclip_l": (4, 8, 8),
    "sdxl": (4, 8, 12),
    "stable_audio": (64, 20),
    "ace": (8, 16, 12),
    "flux": (16, 8, 8),
}
AXES = {"sd15": "HW", "unclip_l": "HW", "sdxl": "HW", "flux": "HW", "stable_audio": "T", "ace": "TF"}
CONTEXT = {
    "sd15": 16,
    "unclip_l": 16,
    "sdxl": 24,
    "stable_audio": 768,
    "ace": 16,
    "flux": 16,
    "ltxav": 32,
    "h3": 16,
}


def unet_config(name: str) -> dict[str, Any]:
    """A fresh copy of a network's configuration."""
    return copy.deepcopy(_CONFIGS[name][1])


def build(name: str, seed: int = 0):
    """The MODEL of a small model, a ModelPatcher."""
    import comfy.model_management as mm
    import comfy.model_patcher
    import comfy.supported_models

    config = getattr(comfy.supported_models, _CONFIGS[name][0])(unet_config(name))
    config.set_inference_dtype(torch.float32, None)
    state = {}
    if name == "stable_audio":
        import comfy.ldm.audio.embedders as embedders

        for part in ("seconds_start", "seconds_total"):
            known = embedders.NumberConditioner(768, min_val=0, max_val=512).state_dict()
            state |= {f"conditioner.conditioners.{part}.{key}": value for key, value in known.items()}
    model = config.get_model(state, device=torch.device("cpu"))
    if name == "ace":  # whose size is not configurable
        del model.diffusion_model.lyric_encoder.encoders[:]
    fill(model, seed)
    device = mm.get_torch_device()
    return comfy.model_patcher.CoreModelPatcher(model, load_device=device, offload_device=mm.unet_offload_device())


def fill(network: torch.nn.Module, seed: int) -> None:
    """Random weights, since ComfyUI's layers have none until a file is loaded."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            fan = max(1, parameter[0].numel()) if parameter.ndim > 1 else 1
            values = torch.randn(parameter.shape, generator=generator)
            is_gain = parameter.ndim == 1 and name.rpartition(".")[2] in ("weight", "scale", "gamma")
            parameter.copy_(1 + 0.05 * values if is_gain else values * (fan**-0.5 if parameter.ndim > 1 else 0.05))
        for name, buffer in network.named_buffers():
            if name.endswith("inv_freq"):
                buffer.copy_(torch.logspace(0, -3, len(buffer)))


def conditioning(name: str, seed: int = 0) -> list:
    """A prompt of a model."""
    generator = torch.Generator().manual_seed(100 + seed)
    values = {"pooled_output": torch.randn(1, {"sdxl": _POOLED, "flux": 8}.get(name, 8), generator=generator)}
    if name == "ace":
        values["conditioning_lyrics"] = torch.randint(0, 8, (1, 3), generator=generator)
    return [[torch.randn(1, PROMPT_TOKENS, CONTEXT[name], generator=generator), values]]


def guider(name: str, model=None, cfg: float = 3.0, seed: int = 0, positive=None):
    """A CFGGuider over a small model."""
    import comfy.samplers

    made = comfy.samplers.CFGGuider(model or build(name, seed))
    made.set_conds(positive or conditioning(name, seed), conditioning(name, seed + 1))
    made.set_cfg(cfg)
    return made


def latent(name: str, seed: int, batch: int = 1) -> torch.Tensor:
    """A latent of a model, in the units of its autoencoder."""
    return torch.randn(batch, *SHAPES[name], generator=torch.Generator().manual_seed(seed))


def ltx_latent(seed: int, batch: int = 1, steps: int = 4) -> dict:
    """A joint LATENT of LTX-2: a video of 1 + 8 (steps - 1) frames, and audio of 25 steps a second at 25 frames."""
    from comfy.nested_tensor import NestedTensor

    generator = torch.Generator().manual_seed(seed)
    shapes = (batch, 128, steps, 2, 3), (batch, 8, 1 + 8 * (steps - 1), 16)
    return {"samples": NestedTensor([torch.randn(shape, generator=generator) for shape in shapes])}


def h3_latent(seed: int, blocks: int = 2) -> dict:
    """A joint LATENT of MiniMax H3: a video of 17 `blocks` + 5 frames, 24 a second, and audio, 40 steps a second."""
    from comfy.nested_tensor import NestedTensor

    generator = torch.Generator().manual_seed(seed)
    shapes = (1, 24, 5 * blocks + 2, 2, 4), (1, 32, 2, round((17 * blocks + 5) / 24 * 40))
    return {"samples": NestedTensor([torch.randn(shape, generator=generator) for shape in shapes])}


def sigmas_of(model, steps: int = 4, scheduler: str = "normal") -> torch.Tensor:
    import comfy.samplers

    return comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), scheduler, steps)
