"""What sampler nodes see as the MODEL of a coupled guider, and an image of all streams while it samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import comfy.latent_formats
import latent_preview
import numpy as np
import torch
from comfy.nested_tensor import NestedTensor
from PIL import Image
from torch import Tensor

from .latent_packing import split


class StreamImages(comfy.latent_formats.LatentFormat):
    """A latent format whose preview is made of the previews of all streams, side by side.

    ComfyUI's previewer reshapes the first stream of a latent and maps it to an image by a matrix. Here the reshaping
    gives the finished image, as `Previews` of a single CoDi does.
    """

    def __init__(self, formats: Sequence[comfy.latent_formats.LatentFormat]):
        if any(one.latent_rgb_factors is not None for one in formats):
            self.latent_rgb_factors = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
            self.latent_rgb_factors_reshape = self.draw
        self._images: dict[int, Image.Image] = {}

    def callback(self, index: int, patcher: Any) -> Callable:
        """The callback of a stream's guider, which draws its clean latent by its model's own latent format."""
        previewer = latent_preview.get_previewer(patcher.load_device, patcher.model.latent_format)

        def draw(step: int, x0: Tensor, x: Tensor, total_steps: int) -> None:
            preview = previewer and previewer.decode_latent_to_preview_image("JPEG", x0)
            if preview:
                self._images[index] = preview[1]

        return draw

    def draw(self, first_stream: Tensor) -> Tensor:
        """The image ``[1, 3, H, W]`` in -1..1 of all streams as they were last drawn."""
        images = [image for _, image in sorted(self._images.items())]
        if not images:
            return torch.zeros(1, 3, 1, 1)
        height = max(image.height for image in images)
        scaled = [image.resize((max(1, image.width * height // image.height), height)) for image in images]
        pixels = np.concatenate([np.asarray(image.convert("RGB")) for image in scaled], axis=1)
        return torch.from_numpy(pixels).movedim(-1, 0)[None] / 127.5 - 1

    def forget(self) -> None:
        """Drop the images of a run."""
        self._images.clear()


class JointModelView:
    """The lead's MODEL, except for what depends on the latents of all streams.

    Attributes
    ----------
    model
        The same view of its BaseModel.
    """

    def __init__(self, patchers: Sequence[Any], lead: int):
        self._lead = patchers[lead]
        self.model = _ModelView([patcher.model for patcher in patchers], lead)

    def __getattr__(self, name: str):
        return getattr(self._lead, name)


class _ModelView:
    def __init__(self, models: Sequence[Any], lead: int):
        self._models, self._lead = models, models[lead]
        self.latent_format = StreamImages([model.latent_format for model in models])

    def process_latent_in(self, latent: NestedTensor) -> NestedTensor:
        return NestedTensor([model.process_latent_in(z) for model, z in zip(self._models, split(latent))])

    def process_latent_out(self, latent: NestedTensor) -> NestedTensor:
        return NestedTensor([model.process_latent_out(z) for model, z in zip(self._models, split(latent))])

    def __getattr__(self, name: str):
        return getattr(self._lead, name)
