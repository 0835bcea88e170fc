"""Colour adjustment: images that take over another image's colours (SPEC_VD sections 5 and 8)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..checks.inputs import as_pixels
from ..checks.numbers import require_number

METHODS = ("mean_std", "histogram")

BINS = 600
MARGIN = 1e-6 / 255


def match_colour(images: Tensor, reference: Tensor, method: str = "mean_std", strength: float = 1.0) -> Tensor:
    """Give images the colours of a reference, channel by channel.

    Parameters
    ----------
    images : Tensor
        ``[B, 3, H, W]`` in 0..1.
    reference : Tensor
        ``[B, 3, h, w]`` in 0..1, or ``[1, 3, h, w]`` for all of them, of any size.
    method : {"mean_std", "histogram"}
        Match mean and standard deviation, as Versatile Diffusion's application does ("Simple"); or these and then the
        whole histogram, as its older script could.
    strength : float
        From 0 (the images as they are) to 1, the application's; the older script's was 0.5.

    Returns
    -------
    Tensor
        ``[B, 3, H, W]`` in 0..1, in the dtype of `images`, or in single precision where these are integers.

    Raises
    ------
    ValueError
        For another shape, batch sizes that do not go together, values that are not finite, or an unknown method or
        strength.
    """
    kind = images.dtype if torch.is_tensor(images) and images.is_floating_point() else torch.float32
    images, reference = as_pixels(images, "The image"), as_pixels(reference, "The reference")
    strength = require_number(strength, "strength", 0, 1)
    _check(images, reference, method)
    y, x = images.double(), reference.to(images.device).double()
    matched = _match_mean_std(y, x)
    if method == "histogram":
        matched = _match_histogram(matched, x.expand(len(y), -1, -1, -1))
    return torch.lerp(y, matched, strength).clamp(0, 1).to(kind)


def _check(images: Tensor, reference: Tensor, method: str) -> None:
    for name, x in (("images", images), ("reference", reference)):
        if x.ndim != 4 or x.shape[1] != 3 or x.numel() == 0:
            raise ValueError(f"Colour is matched between images [B, 3, H, W]; the {name} have shape {list(x.shape)}.")
    if len(reference) not in (1, len(images)):
        raise ValueError(
            f"There are {len(images)} images and {len(reference)} references: give one reference, or one for each."
        )
    if method not in METHODS:
        raise ValueError(f"There is no colour matching {method!r}; choose from {', '.join(METHODS)}.")


def _match_mean_std(y: Tensor, x: Tensor) -> Tensor:
    """A channel of one colour throughout has no spread to stretch, and becomes the reference's mean."""
    mean_y, mean_x = (t.mean((2, 3), keepdim=True) for t in (y, x))
    std_y, std_x = (t.std((2, 3), correction=0, keepdim=True) for t in (y, x))
    return (y - mean_y) * (std_x / std_y.clamp(min=1e-6)) + mean_x


def _match_histogram(y: Tensor, x: Tensor) -> Tensor:
    matched = [_match_channel(a, b) for a, b in zip(y.flatten(0, 1).cpu().numpy(), x.flatten(0, 1).cpu().numpy())]
    return torch.from_numpy(np.stack(matched)).to(y.device).unflatten(0, y.shape[:2])


def _match_channel(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Send each value of ``y [H, W]`` to the one that as large a share of ``x [h, w]`` lies below."""
    edges = np.linspace(min(y.min(), x.min()) - MARGIN, max(y.max(), x.max()) + MARGIN, BINS + 1)
    share_y, share_x = (np.histogram(a, edges)[0].cumsum() / a.size for a in (y, x))
    values = edges[:-1]
    target = np.interp(share_y, share_x, values, left=x.min() - MARGIN, right=x.max() + MARGIN)
    target = np.where(share_y <= share_x[0], x.min() - MARGIN, target)
    target = np.where(share_y >= share_x[-1], x.max() + MARGIN, target)
    return np.interp(y, values, target)
