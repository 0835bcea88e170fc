"""The text prompt encoder: CLIP's text transformer and tokeniser (SPEC section 3.1)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...config import TextEncoderConfig


@functools.cache
def tokenizer() -> Any:
    """CLIP's tokeniser, cached."""
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer()


class TextEncoder(nn.Module):
    """CLIP's causal text transformer, pooled at the end-of-text token, projected and normalised.

    Parameters
    ----------
    config : TextEncoderConfig
    operations : module or class
        Where layers come from: `torch.nn`, or one of ComfyUI's `comfy.ops`.
    dtype, device
        Of the parameters.
    """

    def __init__(self, config: TextEncoderConfig, *, operations: Any = nn, dtype=None, device=None):
        super().__init__()
        self.config = config
        place = {"dtype": dtype, "device": device}
        width = config.token_dim or config.width
        self.token_embedding = operations.Embedding(config.vocab_size, width, **place)
        self.token_projection = operations.Linear(width, config.width, **place) if config.token_dim else nn.Identity()
        self.position_embedding = operations.Embedding(config.positions, config.width, **place)
        self.layers = nn.ModuleList([_Layer(config, operations, place) for _ in range(config.layers)])
        self.final_layer_norm = operations.LayerNorm(config.width, **place)
        self.text_projection = operations.Linear(config.width, config.embedding_dim, bias=False, **place)

    def tokenize(self, texts: Sequence[str], fill: bool = False) -> Tensor:
        """Texts -> token ids ``[B, L]``, where L is the length of the longest text and at most `config.positions`.

        Longer texts are truncated. Padding is the end-of-text token, as in CLIP; with causal attention, tokens after
        the first one have no effect on it. With `fill`, L is `config.positions`, as `all_tokens` needs it.
        """
        clip = tokenizer()
        start, end = clip.sot_token_id, clip.eot_token_id
        rows = [[start, *clip.encode(text)[: self.config.positions - 2], end] for text in texts]
        longest = self.config.positions if fill else max(len(row) for row in rows)
        return torch.tensor([row + [end] * (longest - len(row)) for row in rows])

    def forward(self, tokens: Tensor) -> Tensor:
        """Token ids ``[B, L]`` -> pooled embeddings ``[B, 1, embedding_dim]`` of length 1."""
        pooled = self.final_layer_norm(_at_end_of_text(self._transform(tokens), tokens))
        return F.normalize(self.text_projection(pooled), dim=-1)[:, None]

    def all_tokens(self, tokens: Tensor) -> Tensor:
        """Token ids ``[B, L]`` -> embeddings of all tokens, ``[B, L, embedding_dim]`` (SPEC_VD section 4).

        They are divided by the norm of the end-of-text token, which `forward` returns.
        """
        projected = self.text_projection(self.final_layer_norm(self._transform(tokens)))
        return projected / _at_end_of_text(projected, tokens).norm(dim=-1)[:, None, None]

    def _transform(self, tokens: Tensor) -> Tensor:
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        h = self.token_projection(self.token_embedding(tokens)) + self.position_embedding(positions)
        for layer in self.layers:
            h = layer(h)
        return h


def _at_end_of_text(h: Tensor, tokens: Tensor) -> Tensor:
    """Features ``[B, L, C]`` at the first end-of-text token, which has the highest id: ``[B, C]``."""
    last = (tokens == tokens.amax(1, keepdim=True)).int().argmax(1)
    return h[torch.arange(len(h), device=h.device), last]


class _Layer(nn.Module):
    """A pre-norm transformer layer with causal attention and CLIP's approximate GELU; ``[B, L, C]`` keeps its shape."""

    def __init__(self, config: TextEncoderConfig, operations: Any, place: dict[str, Any]):
        super().__init__()
        width, mlp = config.width, config.mlp or 4 * config.width
        self.heads = config.heads
        self.layer_norm1 = operations.LayerNorm(width, **place)
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (
            operations.Linear(width, width, **place) for _ in range(4)
        )
        self.layer_norm2 = operations.LayerNorm(width, **place)
        self.fc1 = operations.Linear(width, mlp, **place)
        self.fc2 = operations.Linear(mlp, width, **place)

    def forward(self, h: Tensor) -> Tensor:
        x = self.layer_norm1(h)
        q, k, v = (
            proj(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        h = h + self.out_proj(attended.transpose(1, 2).flatten(2))
        x = self.fc1(self.layer_norm2(h))
        return h + self.fc2(x * torch.sigmoid(1.702 * x))
