"""The tiny Versatile Diffusion under the published names, and files as the published ones."""

import torch

from codi_backend.checkpoints import versatile as published_versatile


def states(codi):
    """A model's tensors under the published names, in the new layout and in the old one."""
    new = {key: value.clone() for key, value in codi.to_reference_state_dict().items()}
    return new, old_layout(new, codi.config)


def old_layout(new, config):
    """The same tensors, which the older code names as CoDi does, with one CLIP."""
    old = {}
    for key, value in new.items():
        part = published_versatile.part_of(key)
        if key.startswith("diffuser."):
            name, prefix = part.split(".")[1], "model.diffusion_model."
            [ours] = published_versatile.from_published(part, {key: value}, config)
            if part == "diffuser.time":
                old[f"{prefix}time_embed.{ours}"] = value
            elif part.startswith("contexts."):
                number, rest = ours.split(".", 1)
                order = published_versatile.block_order(config.diffuser.networks[name])
                old[f"{prefix}unet_{name}.{order.shared[int(number)]}.{rest}"] = value
            else:
                old[f"{prefix}unet_{name}.{ours}"] = value
        elif key.startswith("vae."):
            old[key.replace("vae.image.", "autokl.").replace("vae.text.", "optimus.")] = value
        elif key.startswith("ctx.image."):
            old[key.replace("ctx.image.", "clip.")] = value
    return old


def save_files(folder, state, bare=False):
    """Write a state dict as the published files do: the autoencoders in files of their own, if wished."""
    folder.mkdir(exist_ok=True)
    files = {published_versatile.FOUR_FLOW: dict(state)}
    if bare:
        for prefix, name in (("vae.image.", "kl-f8.pth"), ("vae.text.", "optimus-vae.pth")):
            files[name] = {
                key.removeprefix(prefix): files[published_versatile.FOUR_FLOW].pop(key)
                for key in state
                if key.startswith(prefix)
            }
    for name, content in files.items():
        torch.save(content, folder / name)
    return {name: folder / name for name in files}
