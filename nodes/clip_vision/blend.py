"""Blending of CLIP vision outputs, for models that use tokens of an image."""

from __future__ import annotations

import comfy.clip_vision
import torch
from comfy_api.latest import io
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from ..runtime.growing_inputs import connected, growing, partners, weights_of
from ..runtime.media_inputs import mask_values
from ..runtime.required_inputs import require_choice
from ..runtime.types import CATEGORY
from .outputs import Layout, layout, token_fields

MAX_IMAGES = 16
METHODS = ("concatenate", "average")


class CoDiBlendVisionOutputs(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiBlendVisionOutputs",
            display_name="CoDi Blend Vision Outputs",
            category=f"{CATEGORY}/conditioning",
            description="Blends several encoded images into one, each with a weight and a mask.",
            search_aliases=["multi image", "combine", "mask", "clip vision", "redux", "unclip", "regional", "codi"],
            inputs=[
                growing(
                    "clip_vision_outputs",
                    io.ClipVisionOutput.Input("image", tooltip="An encoded image."),
                    MAX_IMAGES,
                    "Images from CLIP Vision Encode, all with the same model; a new socket appears when the last is "
                    "connected.",
                    least=2,
                ),
                growing(
                    "weights",
                    io.Float.Input("weight", tooltip="The weight of the image with the same number."),
                    MAX_IMAGES,
                    "Weights of the images with the same numbers; 0 leaves one out. The default is 1.",
                ),
                growing(
                    "masks",
                    io.Mask.Input("mask", tooltip="The mask of the image with the same number."),
                    MAX_IMAGES,
                    "Masks of the images with the same numbers: 1 for used parts, 0 for unused ones. They are "
                    "stretched over the area that was encoded.",
                ),
                io.Combo.Input(
                    "method",
                    options=list(METHODS),
                    default="concatenate",
                    tooltip="concatenate: joins all tokens, multiplied by their weights, as Versatile Diffusion does. "
                    "average: the weighted mean at each position.",
                ),
            ],
            outputs=[
                io.ClipVisionOutput.Output(
                    display_name="clip_vision_output",
                    tooltip="For Apply Style Model, unCLIPConditioning and other nodes that take an encoded image.",
                )
            ],
        )

    @classmethod
    def execute(cls, clip_vision_outputs, method, weights=None, masks=None) -> io.NodeOutput:
        given = connected("clip_vision_outputs", "image", MAX_IMAGES, clip_vision_outputs, "blend")
        require_choice(method, "method", METHODS)
        names, outputs = list(given), list(given.values())
        fields = [token_fields(output, name) for output, name in zip(outputs, names)]
        layouts = [layout(output, own, name) for output, own, name in zip(outputs, fields, names)]
        _check_alike(dict(zip(names, fields)))
        if method == "average" and len(set(layouts)) > 1:
            raise ValueError("method: average needs images with the same number of tokens; choose concatenate.")
        shares = [
            weight * _on_grid(mask, grid, name.replace("image", "mask"))
            for weight, mask, grid, name in zip(
                weights_of(names, weights), partners(names, "mask", masks), layouts, names
            )
        ]
        if not any(share.any() for share in shares):
            raise ValueError("masks: the masks and weights remove all images; give one a mask that is not all 0.")
        sizes = {len(one) for one in (*shares, *(own[field] for own in fields for field in own))}
        if len(sizes := sizes - {1}) > 1:
            raise ValueError(
                f"clip_vision_outputs: batches of images and masks differ ({', '.join(map(str, sorted(sizes)))}); "
                "make them equal, or 1."
            )
        blended = comfy.clip_vision.Output()
        for field in set.intersection(*map(set, fields)):
            blend = _concatenate if method == "concatenate" else _mean
            tokens = [own[field] for own in fields]
            blended[field] = blend(tokens, [_per_token(share, one) for share, one in zip(shares, tokens)])
        embeddings = [getattr(output, "image_embeds", None) for output in outputs]
        if all(embedding is not None and embedding.ndim == 2 for embedding in embeddings):
            blended.image_embeds = _mean(embeddings, [share.mean((1, 2))[:, None] for share in shares])
        if method == "average" and hasattr(outputs[0], "image_sizes"):
            blended.image_sizes = outputs[0].image_sizes
        return io.NodeOutput(blended)


def _check_alike(fields: dict[str, dict[str, Tensor]]) -> None:
    (first, reference), *others = fields.items()
    for name, own in others:
        shapes = [{field: (*t.shape[1:-2], t.shape[-1]) for field, t in one.items()} for one in (reference, own)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"{name}: this is from another model than {first}; encode all images with the same CLIP vision model."
            )


def _on_grid(mask: Tensor | None, grid: Layout, name: str) -> Tensor:
    """The share of each local token's area that a mask keeps: ``[B, rows, columns]``."""
    if mask is None:
        return torch.ones(1, grid.rows, grid.columns)
    return adaptive_avg_pool2d(mask_values(mask, name).clamp(0, 1), (grid.rows, grid.columns))


def _per_token(share: Tensor, tokens: Tensor) -> Tensor:
    """Shares ``[B, rows, columns]`` for ``[B, ..., N, D]``; tokens of the whole image get the mean, as in VD."""
    whole = tokens.shape[-2] - share[0].numel()
    values = torch.cat([share.mean((1, 2))[:, None].expand(-1, whole), share.flatten(1)], 1)
    return values.reshape(len(share), *[1] * (tokens.ndim - 3), -1, 1).to(tokens)


def _concatenate(tokens: list[Tensor], shares: list[Tensor]) -> Tensor:
    """The weighted tokens joined, without those whose share is 0 in the whole batch."""
    weighted = [one * share for one, share in zip(tokens, shares)]
    batch = max(map(len, weighted))
    kept = [share.flatten(1).any(0) for share in shares]
    parts = [one.expand(batch, *one.shape[1:])[..., keep, :] for one, keep in zip(weighted, kept)]
    return torch.cat(parts, -2)


def _mean(values: list[Tensor], shares: list[Tensor]) -> Tensor:
    """The weighted mean; 0 where all shares are 0."""
    total = sum(shares)
    return sum(one * (share / total.masked_fill(total == 0, 1.0)).to(one) for one, share in zip(values, shares))
