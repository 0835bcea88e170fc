"""LoRAs, hooks and a ControlNet for the small models of ComfyUI."""

from __future__ import annotations

import torch
from host import core_models as core


def lora_of(model, seed=0):
    """A LoRA of every matrix of a model."""
    lora, generator = {}, torch.Generator().manual_seed(seed)
    for key, value in model.model.state_dict().items():
        if key.startswith("diffusion_model.") and key.endswith(".weight") and value.ndim == 2:
            name = key.removesuffix(".weight")
            lora[f"{name}.lora_A.weight"] = 0.3 * torch.randn(2, value.shape[1], generator=generator)
            lora[f"{name}.lora_B.weight"] = 0.3 * torch.randn(value.shape[0], 2, generator=generator)
    return lora


def with_lora(model, seed=0):
    import comfy.sd

    patched, _ = comfy.sd.load_lora_for_models(model, None, lora_of(model, seed), 1.0, 0)
    assert len(patched.patches) > 10
    return patched


def with_hook(model, prompt):
    """A prompt whose LoRA is a hook on the weights, which ComfyUI applies while it samples."""
    import comfy.hooks
    import comfy.lora
    import node_helpers

    hooks = comfy.hooks.create_hook_lora(lora_of(model, 3), 1.0, 0.0)
    keys = comfy.lora.model_lora_keys_unet(model.model, {})
    assert comfy.lora.load_lora(lora_of(model, 3), keys)
    return node_helpers.conditioning_set_values(prompt, {"hooks": hooks})


def with_control(prompt, strength=1.0):
    """A prompt with a small ControlNet of SD1.5."""
    import comfy.cldm.cldm
    import comfy.controlnet
    import comfy.model_management as mm

    config = core.unet_config("sd15")
    for key in ("out_channels", "transformer_depth_output", "use_temporal_attention"):
        config.pop(key)
    network = comfy.cldm.cldm.ControlNet(hint_channels=3, num_heads=8, dtype=torch.float32, **config)
    core.fill(network, 5)
    control = comfy.controlnet.ControlNet(network.eval(), load_device=mm.get_torch_device()).copy()
    hint = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(6))
    control.set_cond_hint(hint, strength, (0.0, 1.0))
    return [[tokens, values | {"control": control, "control_apply_to_uncond": True}] for tokens, values in prompt]
