"""Preprocessing of image and video prompts, as in the original (SPEC sections 3.1 and 4).

Image prompts go through `square_image` and then `clip_pixels`, video prompts through `square_video` and `clip_pixels`.
All steps run on 8-bit values on the CPU, to reproduce the original's rounding.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ...checks.inputs import as_pixels
from ...config import VisionEncoderConfig

_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)


def square_image(pixels: Tensor, size: int = 512, generator: torch.Generator | None = None) -> Tensor:
    """Crop a square out of each image and resize it (SPEC section 4).

    Parameters
    ----------
    pixels : Tensor
        ``[B, 3, H, W]`` in 0..1; values outside are clamped.
    size : int
        Side of the result, in pixels.
    generator : torch.Generator, optional
        For the original's random crop and random horizontal flip, in its order. Without one the crop is central and
        not flipped.

    Returns
    -------
    Tensor
        ``[B, 3, size, size]`` in 0..1, multiples of 1/255, on the device of `pixels`.

    Raises
    ------
    ValueError
        For another shape, no pixels, or values that are not finite.
    """
    pixels = _checked(pixels, "[B, 3, H, W]", 4)

    def crop(image: Image.Image) -> Image.Image:
        side = min(image.size)
        left, top = ((length - side) // 2 for length in image.size)
        if generator is not None and image.width != image.height:
            top = _draw(image.height - side, generator)
            left = _draw(image.width - side, generator)
        square = image.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BICUBIC)
        if generator is not None and torch.rand(1, generator=generator) < 0.5:
            square = square.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return square

    return _each(crop, _rounded(pixels)).float().div(255).to(pixels.device)


def square_video(pixels: Tensor, size: int = 256) -> Tensor:
    """Crop the central square out of each frame and resize it without antialiasing (SPEC section 4).

    Parameters
    ----------
    pixels : Tensor
        ``[B, 3, T, H, W]`` in 0..1; values outside are clamped.
    size : int
        Side of the result, in pixels.

    Returns
    -------
    Tensor
        ``[B, 3, T, size, size]`` in 0..1, multiples of 1/255, on the device of `pixels`.

    Raises
    ------
    ValueError
        For another shape, no frames, or values that are not finite.
    """
    pixels = _checked(pixels, "[B, 3, T, H, W]", 5)
    height, width = pixels.shape[-2:]
    side = min(height, width)
    top, left = ((length - side + 1) // 2 for length in (height, width))  # rounded up, as in the original
    frames = _rounded(pixels[..., top : top + side, left : left + side].transpose(1, 2).flatten(0, 1)).float()
    resized = F.interpolate(frames, (size, size), mode="bicubic", align_corners=False).clamp(0, 255).round() / 255
    return resized.unflatten(0, (len(pixels), -1)).transpose(1, 2).to(pixels.device)


def clip_pixels(pixels: Tensor, size: int = 224, via_signed: bool = True) -> Tensor:
    """Prepare pixels for `ImageEncoder`: resize the short side, crop centrally, normalise (SPEC section 3.1).

    Parameters
    ----------
    pixels : Tensor
        ``[B, 3, H, W]`` or ``[B, 3, T, H, W]`` in 0..1; values outside are clamped.
    size : int
        Side of the result, in pixels.
    via_signed : bool
        Convert to 8 bits as the original CoDi does: through -1..1, with truncation. Versatile Diffusion rounds instead,
        which keeps 8-bit values unchanged.

    Returns
    -------
    Tensor
        ``[B, 3, size, size]`` or ``[B, 3, T, size, size]``, normalised per channel, in single precision, on the device
        of `pixels`.

    Raises
    ------
    ValueError
        For another shape, no pixels, or values that are not finite.
    """
    pixels = _checked(pixels, "[B, 3, H, W] or [B, 3, T, H, W]", 4, 5)
    video = pixels.ndim == 5
    frames = pixels.transpose(1, 2).flatten(0, 1) if video else pixels
    if via_signed:
        signed = frames.cpu().float().clamp(0, 1) * 2 - 1
        bits = ((signed + 1) / 2 * 255).byte()
    else:
        bits = _rounded(frames)

    def centre(image: Image.Image) -> Image.Image:
        short = min(image.size)
        image = image.resize([size * length // short for length in image.size], Image.Resampling.BICUBIC)
        left, top = ((length - size) // 2 for length in image.size)
        return image.crop((left, top, left + size, top + size))

    result = _each(centre, bits).float().div(255)
    result = (result - torch.tensor(_MEAN)[:, None, None]) / torch.tensor(_STD)[:, None, None]
    if video:
        result = result.unflatten(0, (len(pixels), -1)).transpose(1, 2)
    return result.to(pixels.device)


def clip_mask(mask: Tensor, height: int, width: int, size: int = 224) -> Tensor:
    """Prepare a mask as `clip_pixels` does images of `height` x `width`: ``[B, 1, h, w] -> [B, 1, size, size]``.

    A mask of any size is stretched over the images, and resized without antialiasing (SPEC_VD section 4).
    """
    short = min(height, width)
    whole = size * height // short, size * width // short
    mask = F.interpolate(mask.float().clamp(0, 1), whole, mode="bilinear", align_corners=False)
    top, left = ((length - size) // 2 for length in whole)
    return mask[..., top : top + size, left : left + size]


def prepared_pixels(pixels: Tensor, config: VisionEncoderConfig, video: bool) -> Tensor:
    """Crop and resize images ``[B, 3, H, W]`` or videos ``[B, 3, T, H, W]`` in 0..1 for an encoder.

    `clip_pixels` takes the result.
    """
    if video:
        return square_video(thinned(pixels, config.frames), config.video_side)
    return square_image(pixels, config.image_side)


def clip_input(pixels: Tensor, config: VisionEncoderConfig, video: bool) -> Tensor:
    """The input of `ImageEncoder` for images ``[B, 3, H, W]`` or videos ``[B, 3, T, H, W]`` in 0..1."""
    return clip_pixels(prepared_pixels(pixels, config, video), config.image_size)


def clip_unconditional(config: VisionEncoderConfig, frames: int | None = None) -> Tensor:
    """The input of `ImageEncoder` for the unconditional embedding: a mid-grey image, or video of `frames` frames."""
    side = (config.image_size, config.image_size)
    return clip_pixels(torch.full((1, 3, *side) if frames is None else (1, 3, frames, *side), 0.5), config.image_size)


def thinned(pixels: Tensor, frames: int | None) -> Tensor:
    """Subsample videos ``[B, 3, T, H, W]`` to at most `frames` evenly spaced frames, including the last one."""
    length = pixels.shape[2] if pixels.ndim == 5 else 0
    if frames is None or length <= frames:
        return pixels
    return pixels[:, :, [(i + 1) * length // frames - 1 for i in range(frames)]]


def _draw(highest: int, generator: torch.Generator) -> int:
    return int(torch.randint(0, highest + 1, (1,), generator=generator))


def _rounded(pixels: Tensor) -> Tensor:
    return (pixels.cpu().float().clamp(0, 1) * 255).round().byte()


def _each(change: Callable[[Image.Image], Image.Image], images: Tensor) -> Tensor:
    """Apply a function of PIL images to each of 8-bit ``[N, 3, H, W]``; the results have one size."""
    changed = [np.asarray(change(Image.fromarray(image))) for image in images.permute(0, 2, 3, 1).numpy()]
    return torch.from_numpy(np.stack(changed)).permute(0, 3, 1, 2)


def _checked(pixels: Tensor, expected: str, *ranks: int) -> Tensor:
    pixels = as_pixels(pixels, "The image or video of a prompt")
    shape = list(pixels.shape)
    if pixels.ndim not in ranks or shape[1] != 3:
        raise ValueError(f"The pixels of a prompt must be {expected}, not {shape}.")
    if pixels.numel() == 0:
        raise ValueError(f"The pixels of a prompt are empty ({shape}): give at least one image or frame.")
    return pixels
