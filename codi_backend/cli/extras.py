"""Modules that a command needs and that may be missing; the message gives the command that installs them."""

from __future__ import annotations

from importlib.util import find_spec

# What commands that run a model need; open_clip imports torchvision.
MODEL_MODULES = ("torch", "numpy", "PIL", "safetensors", "diffusers")
TEXT_MODULES = ("torchvision", "open_clip")
# As in pyproject.toml; the others are requirements of the pack.
_EXTRAS = {
    "av-align": ("cv2",),
    "emoji": ("resvg_py",),
    "train": ("accelerate", "matplotlib", "scipy", "tensorboard"),
    "standalone": (
        *("torch", "torchvision", "torchaudio", "numpy", "PIL", "safetensors", "tokenizers", "tqdm", "av"),
        "huggingface_hub",  # comes with diffusers
    ),
}
_DISTRIBUTIONS = {
    "PIL": "pillow",
    "open_clip": "open_clip_torch",
    "cv2": "opencv-python-headless",
    "resvg_py": "resvg-py",
}
# No extra can say so: what tinysoundfont needs besides is for playing aloud and has to be compiled.
_WITHOUT_DEPENDENCIES = ("tinysoundfont",)


class MissingModule(ValueError):
    """A module is not installed; the message states the command that installs it."""


def require(*modules: str) -> None:
    """Raise `MissingModule` for the first of these modules that is not installed; none is imported."""
    for module in modules:
        if not installed(module):
            raise missing(module)


def missing(module: str) -> MissingModule:
    """Make the error about a module that is not installed."""
    module = module.partition(".")[0]
    if module in _WITHOUT_DEPENDENCIES:
        return MissingModule(f"{module} is not installed: type pip install --no-deps {module}.")
    extra = next((extra for extra, modules in _EXTRAS.items() if module in modules), None)
    what = "." if extra is None else f'".[{extra}]"'
    return MissingModule(
        f"{_DISTRIBUTIONS.get(module, module)} is not installed: "
        f"type pip install -e {what} in the folder of CoDi any-to-any."
    )


def installed(module: str) -> bool:
    """Whether the package of this name can be imported."""
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False
