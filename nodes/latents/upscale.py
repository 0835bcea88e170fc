"""Upscaling of one stream of a joint latent."""

from __future__ import annotations

import comfy.utils
from comfy_api.latest import io

from ...codi_backend.checks.numbers import require_number
from ...codi_backend.modalities import MAX_SIDE
from ..runtime.joint_latents import names_of_streams, number_of
from ..runtime.latent_packing import require_content, samples_of, split, split_masks, with_masks
from ..runtime.stream_axes import axes_of
from ..runtime.types import CATEGORY

METHODS = ("nearest-exact", "bilinear", "area", "bicubic", "bislerp")


class CoDiUpscaleStream(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiUpscaleStream",
            display_name="CoDi Upscale Stream",
            category=f"{CATEGORY}/latent",
            description="Upscale Latent By for one stream of a joint latent: its images or frames get larger, and the "
            "other streams stay as they are.",
            search_aliases=["upscale latent by", "resize latent", "hires fix", "joint latent", "nested latent", "codi"],
            inputs=[
                io.Latent.Input("samples", tooltip="A latent of one or more streams."),
                io.String.Input(
                    "stream", default="1", tooltip="Number or name of an image or video stream, such as 1 or video."
                ),
                io.Combo.Input("upscale_method", options=list(METHODS), tooltip="Method of interpolation."),
                io.Float.Input(
                    "scale_by", default=1.5, min=0.01, max=8.0, step=0.01, tooltip="Factor of width and height."
                ),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="All streams. Masks are kept.")],
        )

    @classmethod
    def execute(cls, samples, stream, upscale_method, scale_by) -> io.NodeOutput:
        streams = split(samples_of(samples))
        index = number_of(stream, samples, "stream")
        chosen, name = streams[index], names_of_streams(samples)[index]
        require_content(chosen.shape, "samples")
        if axes_of(chosen.shape) not in ("HW", "THW"):
            raise ValueError(f"stream: {name} has no width and height; choose an image or video stream.")
        if upscale_method not in METHODS:
            raise ValueError(f"upscale_method: {upscale_method!r} is none; choose {', '.join(METHODS)}.")
        scale_by = require_number(scale_by, "scale_by", 0.01, 8)
        height, width = (max(1, round(side * scale_by)) for side in chosen.shape[-2:])
        if max(height, width) > MAX_SIDE:
            raise ValueError(f"scale_by: a latent of {width} x {height} is too large; choose a smaller factor.")
        streams[index] = comfy.utils.common_upscale(chosen, width, height, upscale_method, "disabled")
        return io.NodeOutput(with_masks(samples, streams, split_masks(samples)))
