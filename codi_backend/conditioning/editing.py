"""Steps of image-text-image editing, and of the older script's disentanglement (SPEC_VD section 8)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..checks.inputs import as_latent
from .focus import check_tokens, decompose

LEVELS = (-2, -1, 0, 1, 2)

_FIRST_AND_LAST = {-2: (2, 50), -1: (1, 50), 1: (0, 10), 2: (0, 2)}


def edit_text_latent(latents: Tensor, negative: Tensor | None = None, positive: Tensor | None = None) -> Tensor:
    """Remove one text's meaning from text latents, and add another's.

    Parameters
    ----------
    latents : Tensor
        ``[B, D]``, of texts that describe the image.
    negative : Tensor, optional
        ``[B, D]`` or ``[1, D]``: latents lose their component in its direction. A latent of zeros has none.
    positive : Tensor, optional
        ``[B, D]`` or ``[1, D]``: added with its full length.

    Returns
    -------
    Tensor
        ``[B, D]``, in the dtype of `latents`.

    Raises
    ------
    ValueError
        For shapes that do not go together, or numbers that cannot be right.
    """
    latents = as_latent(latents, "The text latent")
    if latents.ndim != 2:
        raise ValueError(f"Text latents are [B, D], not {list(latents.shape)}.")
    for name, latent in (("negative", negative), ("positive", positive)):
        if latent is not None and latent.shape not in (latents.shape, (1, latents.shape[1])):
            raise ValueError(
                f"The {name} latent of shape {list(latent.shape)} does not go with latents {list(latents.shape)}: "
                "encode one text, or one for each, with the same text autoencoder."
            )
        if latent is not None:
            as_latent(latent, f"The {name} latent")
    edited = latents.float()
    if negative is not None:
        direction = torch.nn.functional.normalize(negative.float(), dim=-1)
        edited = edited - (edited * direction).sum(-1, keepdim=True) * direction
    if positive is not None:
        edited = edited + positive.float()
    return edited.to(latents.dtype)


def low_rank(tokens: Tensor, level: int) -> Tensor:
    """The older script's disentanglement: drop the strongest components of an image's tokens, or keep only these.

    Parameters
    ----------
    tokens : Tensor
        Local tokens ``[B, N, D]``. Every sample is edited by itself.
    level : {-2, -1, 0, 1, 2}
        -1 and -2 drop the first one or two components, and those beyond the fiftieth (more semantic); 1 and 2 keep the
        first ten or two (more style); 0 changes nothing. The original's random projections are not converged at 2;
        these are exact.

    Returns
    -------
    Tensor
        ``[B, N, D]``, in the dtype given. Unlike `focus`, the spread is not restored.

    Raises
    ------
    ValueError
        For another shape or level, or values that are not finite.
    """
    if level not in LEVELS:
        raise ValueError(f"There is no disentanglement level {level}; choose from {', '.join(map(str, LEVELS))}.")
    check_tokens(tokens)
    if level == 0:
        return tokens
    first, last = _FIRST_AND_LAST[level]
    _, mean, u, s, v = decompose(tokens, last)
    return (mean + (u[..., first:] * s[:, None, first:]) @ v[:, first:]).to(tokens.dtype)
