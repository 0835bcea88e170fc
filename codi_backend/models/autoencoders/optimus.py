"""The text autoencoder Optimus (SPEC section 5.3)."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...checks.numbers import MAX_SEED, require_whole
from ...config import TextAutoencoderConfig
from .optimus_networks import BertEncoder, Gpt2Decoder
from .text_cleanup import drop_repeats
from .token_sampling import TokenSampling
from .vocabulary import Vocabulary, read_vocabulary
from .words import WordList


class TextAutoencoder(nn.Module):
    """Texts <-> latents, in VAE units; the diffuser's latents are `scale_factor` times these.

    Parameters
    ----------
    config : TextAutoencoderConfig
    vocabulary : str or path, optional
        Folder with `vocab.txt` (BERT, cased) and `vocab.json` (GPT-2), read at first use. Token ids do not need it, nor
        does a model whose configuration lists its words.
    operations : module or class
        Where layers come from: `torch.nn`, or one of ComfyUI's `comfy.ops`.
    dtype, device
        Of the parameters.
    """

    def __init__(
        self,
        config: TextAutoencoderConfig,
        *,
        vocabulary: str | os.PathLike | None = None,
        operations: Any = nn,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ):
        super().__init__()
        self.config = config
        self.vocabulary_folder = vocabulary
        self._words = None if config.words is None else WordList(config)
        place = {"dtype": dtype, "device": device}
        self.encoder = BertEncoder(config.encoder, config.latent_dim, operations, place)
        self.decoder = Gpt2Decoder(config.decoder, config.latent_dim, operations, place)

    @property
    def vocabulary(self) -> Vocabulary | WordList:
        """The tokeniser; `FileNotFoundError` or `ValueError` if its files are missing or do not fit the model."""
        if self._words is not None:
            return self._words
        if self.vocabulary_folder is None:
            raise FileNotFoundError(
                "The text autoencoder has no vocabularies: name the folder that holds vocab.txt of BERT "
                "(bert-base-cased) and vocab.json of GPT-2 (gpt2) as `vocabulary` when you load the model."
            )
        return read_vocabulary(self.vocabulary_folder, self.config)

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Texts -> the means of their posteriors ``[B, D]``. `ValueError` if there is no text."""
        if not texts:
            raise ValueError("There is no text to encode: give at least one text, which may be empty.")
        ids = self.vocabulary.tokenize(texts)
        return self.posterior(ids.to(self.encoder.pooler.weight.device))[0]

    def posterior(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Ids ``[B, L]`` from `Vocabulary.tokenize` -> mean and log-variance, ``[B, D]`` each."""
        return self.encoder(ids)

    def logits(self, latents: Tensor, ids: Tensor) -> Tensor:
        """Next-token logits: latents ``[B, D]`` and the first ids of texts ``[B, N]`` -> ``[B, N, vocab_size]``."""
        hidden, _ = self.decoder(ids, latents, self.decoder.begin(latents))
        return self.decoder.logits(hidden)

    def decode(
        self,
        latents: Tensor,
        *,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        greedy: bool | None = None,
        seed: int = 0,
        max_tokens: int = 30,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[str]:
        """Latents ``[B, D]`` -> texts, without repeated words and phrases as in the released code.

        Parameters as for `TokenSampling` and `sample`; `greedy` defaults to the configuration's value. `ValueError` for
        a value out of range.
        """
        vocabulary = self.vocabulary
        sampling = TokenSampling(temperature, top_k, top_p, self.config.greedy if greedy is None else greedy)
        texts = map(vocabulary.text, self.sample(latents, sampling, seed, max_tokens, progress))
        return [drop_repeats(text, self.config.drop_words) for text in texts]

    @torch.no_grad()
    def sample(
        self,
        latents: Tensor,
        sampling: TokenSampling,
        seed: int = 0,
        max_tokens: int = 30,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[list[int]]:
        """Sample the tokens of a text for each latent.

        Parameters
        ----------
        latents : Tensor
            ``[B, D]``.
        sampling : TokenSampling
        seed : int
            Each text has its own generator with this seed, so that its tokens do not depend on the rest of the batch.
        max_tokens : int
            Maximum length of a text, including its begin and end tokens.
        progress : callable, optional
            Called before every token with the number of tokens so far and `max_tokens`; its exceptions are passed on.

        Returns
        -------
        list of list of int
            Token ids of each text, from the begin token to the end token.

        Raises
        ------
        ValueError
            For latents of another shape, or a number out of range.
        """
        size, positions = self.config.latent_dim, self.config.decoder.positions
        if latents.ndim != 2 or latents.shape[1] != size:
            raise ValueError(f"Text latents must be [B, {size}], not {list(latents.shape)}.")
        max_tokens = require_whole(max_tokens, "max_tokens", 2, positions)
        seed = require_whole(seed, "seed", 0, MAX_SEED)
        end = self.config.decoder.vocab_size - 1
        texts = [[end - 1] for _ in latents]
        generators = [torch.Generator().manual_seed(seed) for _ in latents]
        cache = self.decoder.begin(latents)
        for count in range(1, max_tokens - 1):
            if progress is not None:
                progress(count, max_tokens)
            last = torch.tensor([ids[-1:] for ids in texts], device=latents.device)
            hidden, cache = self.decoder(last, latents, cache)
            for ids, logits, generator in zip(texts, self.decoder.logits(hidden[:, -1]).float().cpu(), generators):
                if ids[-1] != end:
                    ids.append(sampling.pick(logits, generator))
            if all(ids[-1] == end for ids in texts):
                break
        return [ids if ids[-1] == end else [*ids, end] for ids in texts]
