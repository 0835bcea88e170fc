"""Modules that a command needs and that may not be installed: a sentence with the command to type."""

from __future__ import annotations

from importlib.util import find_spec

# As in pyproject.toml; the others come with the pack itself.
_EXTRAS = {
    "train": ("accelerate", "matplotlib", "scipy", "tensorboard"),
    "standalone": (
        *("torch", "torchvision", "torchaudio", "numpy", "PIL", "safetensors", "tokenizers", "tqdm", "av"),
        "huggingface_hub",  # comes with diffusers
    ),
}
_DISTRIBUTIONS = {"PIL": "pillow", "open_clip": "open_clip_torch"}


class MissingModule(ValueError):
    """A module is not installed; the message says how to install it."""


def require(*modules: str) -> None:
    """`MissingModule` for the first of these modules that is not installed; none is imported."""
    for module in modules:
        if not installed(module):
            raise missing(module)


def missing(module: str) -> MissingModule:
    """The error about a module that is not installed."""
    module = module.partition(".")[0]
    extra = next((extra for extra, modules in _EXTRAS.items() if module in modules), None)
    what = "." if extra is None else f'".[{extra}]"'
    return MissingModule(
        f"{_DISTRIBUTIONS.get(module, module)} is not installed: "
        f"type pip install -e {what} in the folder of CoDi any-to-any."
    )


def installed(module: str) -> bool:
    """Whether a module could be imported, by the name of its package."""
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False
