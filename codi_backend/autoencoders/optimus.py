"""The text autoencoder Optimus (SPEC section 5.3)."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..checks import MAX_SEED, require_whole
from ..config import TextAutoencoderConfig
from .optimus_networks import BertEncoder, Gpt2Decoder
from .text_cleanup import drop_repeats
from .token_sampling import TokenSampling
from .vocabulary import Vocabulary, read_vocabulary
from .words import WordList


class TextAutoencoder(nn.Module):
    """Texts <-> latents. Latents are in VAE units: the diffuser's are `scale_factor` times these.

    Parameters
    ----------
    config : TextAutoencoderConfig
    vocabulary : str or path, optional
        Folder with `vocab.txt` (BERT, cased) and `vocab.json` (GPT-2). Only texts need it, not ids; it is read when
        first needed, and never by a model whose configuration lists its words.
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
        """`FileNotFoundError` or `ValueError` with a sentence about what is missing or wrong."""
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
            raise ValueError("There is no text to encode: give at least one, which may be empty.")
        ids = self.vocabulary.tokenize(texts)
        return self.posterior(ids.to(self.encoder.pooler.weight.device))[0]

    def posterior(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Ids that `Vocabulary.tokenize` gives ``[B, L]`` -> mean and log-variance, ``[B, D]`` each."""
        return self.encoder(ids)

    def logits(self, latents: Tensor, ids: Tensor) -> Tensor:
        """What may follow each token: ``[B, D]`` and ids ``[B, N]`` that begin a text -> ``[B, N, vocab_size]``."""
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
        """Latents ``[B, D]`` -> texts, repeated words and phrases removed as in the released code.

        Parameters as for `TokenSampling` and `sample`, `greedy` being the configuration's by default; `ValueError` for
        one out of range.
        """
        vocabulary = self.vocabulary
        how = TokenSampling(temperature, top_k, top_p, self.config.greedy if greedy is None else greedy)
        texts = map(vocabulary.text, self.sample(latents, how, seed, max_tokens, progress))
        return [drop_repeats(text, self.config.drop_words) for text in texts]

    @torch.no_grad()
    def sample(
        self,
        latents: Tensor,
        how: TokenSampling,
        seed: int = 0,
        max_tokens: int = 30,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[list[int]]:
        """Draw the tokens of a text for each latent.

        Parameters
        ----------
        latents : Tensor
            ``[B, D]``.
        how : TokenSampling
        seed : int
            Every text has a generator of its own that starts from this seed: what a latent gives does not depend on the
            others of its batch.
        max_tokens : int
            Length at which a text is ended, its beginning and end included.
        progress : callable, optional
            Called before every token with the number of tokens so far and `max_tokens`; what it raises ends the work.

        Returns
        -------
        list of list of int
            Each begins with the token that begins, and ends with the one that ends a text.
        """
        size, positions = self.config.latent_dim, self.config.decoder.positions
        if latents.ndim != 2 or latents.shape[1] != size:
            raise ValueError(f"Text latents [B, {size}] are needed, not {list(latents.shape)}.")
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
                    ids.append(how.pick(logits, generator))
            if all(ids[-1] == end for ids in texts):
                break
        return [ids if ids[-1] == end else [*ids, end] for ids in texts]
