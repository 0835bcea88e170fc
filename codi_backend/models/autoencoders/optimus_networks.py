"""The networks of the text autoencoder: BERT as encoder and GPT-2 as decoder (SPEC section 5.3)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...config import TransformerConfig

Cache = list[tuple[Tensor, Tensor]]
"""Keys and values of the previous tokens, ``[B, heads, past, dim]`` each, by layer."""


def _split_heads(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


class BertEncoder(nn.Module):
    """BERT with pooling at the first token, and a linear layer for the mean and log-variance of the latent.

    Parameters
    ----------
    config : TransformerConfig
    latent_dim : int
        D.
    operations : module or class
        Where layers come from: `torch.nn`, or one of ComfyUI's `comfy.ops`.
    place : dict
        `dtype` and `device` of the parameters.
    """

    def __init__(self, config: TransformerConfig, latent_dim: int, operations: Any, place: dict[str, Any]):
        super().__init__()
        self.token_embedding = operations.Embedding(config.vocab_size, config.width, **place)
        self.position_embedding = operations.Embedding(config.positions, config.width, **place)
        self.type_embedding = operations.Embedding(2, config.width, **place)
        self.embedding_norm = operations.LayerNorm(config.width, eps=1e-12, **place)
        self.layers = nn.ModuleList([_BertLayer(config, operations, place) for _ in range(config.layers)])
        self.pooler = operations.Linear(config.width, config.width, **place)
        self.posterior = operations.Linear(config.width, 2 * latent_dim, bias=False, **place)

    def pooled(self, ids: Tensor) -> Tensor:
        """Pooled features: token ids ``[B, L]``, 0 for padding -> ``[B, width]``."""
        positions = torch.arange(ids.shape[1], device=ids.device)
        h = self.token_embedding(ids) + self.position_embedding(positions)
        h = self.embedding_norm(h + self.type_embedding(torch.zeros_like(positions)))
        mask = (ids > 0)[:, None, None]
        for layer in self.layers:
            h = layer(h, mask)
        return torch.tanh(self.pooler(h[:, 0]))

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Token ids ``[B, L]``, 0 for padding -> mean and log-variance, ``[B, D]`` each."""
        mean, log_variance = self.posterior(self.pooled(ids)).chunk(2, -1)
        return mean, log_variance


class _BertLayer(nn.Module):
    """A post-norm transformer layer; ``h [B, L, C]``, ``mask [B, 1, 1, L]`` true for tokens that are not padding."""

    def __init__(self, config: TransformerConfig, operations: Any, place: dict[str, Any]):
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.query, self.key, self.value, self.out = (operations.Linear(width, width, **place) for _ in range(4))
        self.attention_norm = operations.LayerNorm(width, eps=1e-12, **place)
        self.fc1 = operations.Linear(width, config.hidden, **place)
        self.fc2 = operations.Linear(config.hidden, width, **place)
        self.output_norm = operations.LayerNorm(width, eps=1e-12, **place)

    def forward(self, h: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (_split_heads(proj(h), self.heads) for proj in (self.query, self.key, self.value))
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        h = self.attention_norm(h + self.out(attended.transpose(1, 2).flatten(2)))
        return self.output_norm(h + self.fc2(F.gelu(self.fc1(h))))


class Gpt2Decoder(nn.Module):
    """GPT-2 with the latent added to every token's embedding, and as a memory token before the first one.

    Parameters as for `BertEncoder`.
    """

    def __init__(self, config: TransformerConfig, latent_dim: int, operations: Any, place: dict[str, Any]):
        super().__init__()
        self.heads = config.heads
        self.token_embedding = operations.Embedding(config.vocab_size, config.width, **place)
        self.position_embedding = operations.Embedding(config.positions, config.width, **place)
        self.layers = nn.ModuleList([_Gpt2Layer(config, operations, place) for _ in range(config.layers)])
        self.final_norm = operations.LayerNorm(config.width, **place)
        self.memory = operations.Linear(latent_dim, config.layers * config.width, bias=False, **place)
        self.latent_embedding = operations.Linear(latent_dim, config.width, bias=False, **place)

    def begin(self, latents: Tensor) -> Cache:
        """Latents ``[B, D]`` -> a cache with the memory token, which is both key and value in every layer."""
        memory = self.memory(latents).unflatten(-1, (len(self.layers), self.heads, 1, -1))
        return [(layer, layer) for layer in memory.unbind(1)]

    def forward(self, ids: Tensor, latents: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
        """Hidden states of the next tokens.

        Parameters
        ----------
        ids : Tensor
            ``[B, N]``.
        latents : Tensor
            ``[B, D]``.
        cache : Cache
            From `begin`, or from the call with the previous tokens. It is not modified.

        Returns
        -------
        hidden : Tensor
            ``[B, N, width]``, for `logits`.
        cache : Cache
        """
        past, count = cache[0][0].shape[2], ids.shape[1]
        positions = torch.arange(past, past + count, device=ids.device)  # the memory token has position 0
        h = self.token_embedding(ids) + self.position_embedding(positions) + self.latent_embedding(latents)[:, None]
        mask = torch.ones(count, past + count, dtype=torch.bool, device=ids.device).tril(past)
        grown = []
        for layer, before in zip(self.layers, cache):
            h, now = layer(h, before, mask)
            grown.append(now)
        return self.final_norm(h), grown

    def logits(self, hidden: Tensor) -> Tensor:
        """Token logits by the tied embeddings: ``[..., width]`` -> ``[..., vocab_size]``."""
        return F.linear(hidden, self.token_embedding.weight.to(hidden))


class _Gpt2Layer(nn.Module):
    """A pre-norm transformer layer with the tanh-approximate GELU; ``h [B, N, C]``, ``mask [N, past + N]``."""

    def __init__(self, config: TransformerConfig, operations: Any, place: dict[str, Any]):
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.attention_norm = operations.LayerNorm(width, **place)
        self.qkv = operations.Linear(width, 3 * width, **place)
        self.out = operations.Linear(width, width, **place)
        self.mlp_norm = operations.LayerNorm(width, **place)
        self.fc1 = operations.Linear(width, config.hidden, **place)
        self.fc2 = operations.Linear(config.hidden, width, **place)

    def forward(self, h: Tensor, past: tuple[Tensor, Tensor], mask: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        q, k, v = (_split_heads(x, self.heads) for x in self.qkv(self.attention_norm(h)).chunk(3, -1))
        k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        h = h + self.out(attended.transpose(1, 2).flatten(2))
        return h + self.fc2(F.gelu(self.fc1(self.mlp_norm(h)), approximate="tanh")), (k, v)
