"""The model as a whole: load it, encode prompts, encode and decode latents, generate."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .checkpoints.files import Source, resolve
from .checkpoints.native import Checkpoint, State, cut, fit, read_parts, remedy
from .checkpoints.parts import FIELDS, build, diffuser_parts, on_meta
from .checkpoints.quantisation import dequantised, quantised_keys, quantised_layers
from .checkpoints.systems import system_by_config, system_by_edition, system_of
from .checkpoints.tensor_file import convert
from .checkpoints.weight_values import require_finite_weights
from .checks.inputs import as_pixels, as_rate, as_samples, latent_to_decode, pixels_to_encode
from .conditioning.context import Context
from .conditioning.encode import image_context, text_context
from .conditioning.prompt import Prompt
from .conditioning.text_hints import encoding_hints, known_words, text_hints, warn
from .config import CoDiConfig
from .generation import GenerationMixin
from .modalities import MODALITIES, audio_steps, latent_shape, modality, multiple_of
from .models.autoencoders.vocabulary import find_vocabulary, read_vocabulary
from .models.diffuser import Diffuser
from .models.encoders.audio import CutPrompt
from .models.encoders.preprocess import clip_input, clip_unconditional
from .models.quantised import replace_layers


class CoDi(GenerationMixin, nn.Module):
    """Composable Diffusion: prompt encoders, a joint diffuser, autoencoders.

    Parts are reached as `diffuser`, ``prompt_encoders["text"]`` and ``autoencoders["image"]``; videos share those of
    images. A new model has random weights; `load` reads trained ones.

    Attributes
    ----------
    report : Checkpoint or None
        What `load` found, without the tensors: edition, files, and counts per part.
    prompt_words : tuple of str or None
        Words of the captions that a small model was trained on, see `known_words`.
    """

    report: Checkpoint | None = None

    def __init__(self, config: CoDiConfig):
        super().__init__()
        self.config = config
        self.prompt_words = known_words(config)
        self.diffuser = Diffuser(config.diffuser)
        self.prompt_encoders = nn.ModuleDict()
        self.autoencoders = nn.ModuleDict()
        for part, field in FIELDS.items():
            if getattr(config, field) is not None:
                group, name = part.split(".")
                getattr(self, group)[name] = build(part, config)
        self.eval()

    @classmethod
    def load(
        cls,
        source: Source = "mini",
        *,
        only: Iterable[str] | None = None,
        dtype: torch.dtype = torch.float32,
        vocabulary: str | os.PathLike | None = None,
    ) -> CoDi:
        """Load "mini", "emoji" or "vd-mini" (the shipped models), files of this pack, or published files; onto the CPU.

        Parameters
        ----------
        source : str, path or iterable of paths
            A folder means the checkpoint files in it. Published files may be any subset: the model has the parts that
            they hold.
        only : iterable of str, optional
            Names of the parts to load, as in ``["prompt_encoders.text", "diffuser.image", "autoencoders.image"]``.
        dtype : torch.dtype
            What the weights are brought to, a floating-point type. Weights that are stored so stay memory-mapped. All
            are read once, to find values that are not finite, or would not be in that type. Quantised weights stay
            quantised and memory-mapped, and are dequantised layer by layer at each forward pass.
        vocabulary : str or path, optional
            Folder with `vocab.txt` (BERT, cased) and `vocab.json` (GPT-2), which the published text autoencoder needs
            for texts; by default the folder of a checkpoint file, where it has both.

        Raises
        ------
        FileNotFoundError, ValueError
            With a sentence about what is wrong with the files or the weights.
        """
        files = resolve(source)
        checkpoint = read_parts(files, only)
        config = checkpoint.config if only is None else cut(checkpoint.config, checkpoint.parts)
        with on_meta(" and ".join(file.name for file in files[:2])):
            codi = cls(config)
        parts = codi.parts()
        if missing := sorted(parts.keys() - checkpoint.parts.keys()):
            raise ValueError(f"The checkpoint has no {', '.join(missing)}: add the file that holds it.")
        for name, part in parts.items():
            state = checkpoint.take(name, part.state_dict(), quantised=True)
            quantised = {key: state.pop(key) for key in quantised_keys(state)}
            require_finite_weights(quantised, checkpoint.called(name))
            convert(state, dtype, checkpoint.called(name))
            replace_layers(part, quantised_layers(quantised))
            part.load_state_dict(state | quantised, assign=True)
        if "text" in codi.autoencoders and config.text_autoencoder.words is None:
            if vocabulary is not None:
                read_vocabulary(vocabulary, config.text_autoencoder)  # a wrong folder is reported now
            codi.autoencoders["text"].vocabulary_folder = vocabulary or find_vocabulary(f.parent for f in files)
        codi.report, codi.prompt_words = checkpoint, known_words(checkpoint.config)
        return codi

    @classmethod
    def from_state_dict(cls, state_dict: Mapping[str, Tensor], config: CoDiConfig) -> CoDi:
        """Make a model from tensors under the published names; keys that belong to none of its parts are ignored.

        `ValueError` if a part's tensors are missing, have other shapes than in `config`, or are not finite.
        """
        with torch.device("meta"):
            codi = cls(config)
        system = system_of([("The state dict", state_dict)])
        for name, part in codi.parts().items():
            named = {key: value for key, value in state_dict.items() if system.part_of(key) == name}
            state, _ = fit(name, system.from_published(name, named, config), config, ["The state dict"])
            require_finite_weights(state, f"The state dict's {name}")
            part.load_state_dict(state, assign=True)
        return codi

    def to_reference_state_dict(self) -> State:
        """All tensors under the published names, with the constants that published files hold.

        Of Versatile Diffusion's two layouts it is the newer.
        """
        system, named = system_by_config(self.config), {}
        for name, part in self.parts().items():
            named |= system.to_published(name, dequantised(part.state_dict()), self.config)
        return named

    def parts(self) -> dict[str, nn.Module]:
        """The modules that checkpoints store separately, by part name."""
        return {
            **diffuser_parts(self.diffuser),
            **{f"prompt_encoders.{name}": encoder for name, encoder in self.prompt_encoders.items()},
            **{f"autoencoders.{name}": autoencoder for name, autoencoder in self.autoencoders.items()},
        }

    @property
    def outputs(self) -> tuple[str, ...]:
        """Modalities that this model can generate."""
        return tuple(name for name in MODALITIES if not self._lacking(name))

    @torch.inference_mode()
    def prompt(self, name: str, content: str | Sequence[str] | Tensor, sample_rate: int | None = None) -> Prompt:
        """Encode a prompt.

        Parameters
        ----------
        name : {"text", "image", "video", "audio"}
        content : str, sequence of str, or Tensor
            A text or several; pixels ``[B, 3, H, W]``, or ``[B, 3, T, H, W]`` for videos, in 0..1 or in 8 bits, of
            which the centre square is looked at; or mono audio ``[B, 1, N]`` in -1..1 or as integer PCM, of which, with
            a warning `CutPrompt`, the middle is encoded if it is longer than the encoder takes.
        sample_rate : int
            Of audio, in Hz.

        Returns
        -------
        Prompt
            The unconditional embedding is that of the empty text, of mid-grey pixels or of silence.

        Warns
        -----
        TextHint
            About words of a text that did not occur in training, and a text that is too long for the encoder.

        Raises
        ------
        ValueError
            If the model lacks the encoder, or the content cannot be encoded: also for numbers that cannot be right.
        """
        modality(name)
        encoder_name = "image" if name == "video" else name
        if encoder_name not in self.prompt_encoders:
            raise ValueError(
                f"This model has no {name} prompt encoder; it has {', '.join(self.prompt_encoders) or 'none'}."
            )
        encoder = self.prompt_encoders[encoder_name]
        weight = next(encoder.parameters())
        what = f"The {name} of a prompt"
        if name == "text":
            texts = _texts(content)
            warn(text_hints(texts, encoder.config, self.prompt_words))
            embeddings = encoder(encoder.tokenize([*texts, ""]).to(weight.device))
            embedding, unconditional = embeddings[:-1], embeddings[-1:]
        elif name == "audio":
            if sample_rate is None:
                raise ValueError("The sample rate of the audio is needed: give sample_rate in Hz.")
            waveforms = as_samples(content, what).to(weight.device)
            embedding = encoder(waveforms, sample_rate)
            unconditional = encoder(torch.zeros_like(waveforms[:1]), sample_rate)
            given, taken = waveforms.shape[-1] / sample_rate, encoder.config.seconds
            if given > 1.01 * taken:
                warnings.warn(
                    f"The audio prompt lasts {given:.2f} s: its middle, {taken:g} s, is encoded; cut out the part that "
                    "matters to choose another.",
                    CutPrompt,
                    stacklevel=3,  # beyond the decorator
                )
        else:
            pixels = clip_input(as_pixels(content, what), encoder.config, name == "video")
            nothing = clip_unconditional(encoder.config, pixels.shape[2] if name == "video" else None)
            embedding, unconditional = (encoder(inputs.to(weight.device, weight.dtype)) for inputs in (pixels, nothing))
        return Prompt(embedding, unconditional.expand_as(embedding))

    @torch.inference_mode()
    def context(
        self,
        kind: str,
        content: str | Sequence[str] | Tensor,
        *,
        mask: Tensor | None = None,
        weight: float = 1.0,
        focus: float = 0.5,
        unconditional: str | None = None,
    ) -> Context:
        """Encode a context of all tokens, for diffusers with layers per kind of context (SPEC_VD sections 4 and 5).

        Parameters
        ----------
        kind : {"text", "image"}
        content : str, sequence of str, or Tensor
            A text or several; or images ``[B, 3, H, W]`` in 0..1, of which the centre square is looked at.
        mask : Tensor, optional
            For images: ``[B, 1, h, w]`` or ``[1, 1, h, w]``, 1 where the image is to be seen, 0 where it is not.
        weight : float
            For images: factor of the tokens.
        focus : float
            For images: from 0, what they mean, to 1, what style they have; 0.5 changes nothing.
        unconditional : {"zeros", "black", "grey"}, optional
            For images: the unconditional tokens: zeros, or those of an image of one colour. By default zeros, but black
            where a text is generated.

        Warns
        -----
        TextHint
            As for `prompt`.

        Raises
        ------
        ValueError
            If the model lacks the encoder, or the content cannot be encoded.
        """
        if kind not in ("text", "image"):
            raise ValueError(f"There are no {kind} contexts; choose from text, image.")
        if kind not in self.prompt_encoders:
            raise ValueError(f"This model has no {kind} encoder; it has {', '.join(self.prompt_encoders) or 'none'}.")
        encoder = self.prompt_encoders[kind]
        place = next(encoder.parameters())
        if kind == "image":

            def image_tokens(pixels: Tensor, mask: Tensor | None) -> Tensor:
                return encoder.all_tokens(pixels.to(place), mask)

            side = encoder.config.image_size
            return image_context(image_tokens, side, content, mask, weight, focus, unconditional)
        if mask is not None or weight != 1 or focus != 0.5 or unconditional is not None:
            raise ValueError("mask, weight, focus and unconditional are for image contexts: leave them out.")

        def text_tokens(texts: list[str]) -> Tensor:
            return encoder.all_tokens(encoder.tokenize(texts, fill=True).to(place.device))

        texts = _texts(content)
        warn(text_hints(texts, encoder.config, self.prompt_words))
        return text_context(text_tokens, texts)

    @torch.inference_mode()
    def encode(
        self,
        name: str,
        content: Tensor | str | Sequence[str],
        sample_rate: int | None = None,
        seconds: float | None = None,
    ) -> Tensor:
        """Content -> latents in VAE units.

        Parameters
        ----------
        name : {"text", "image", "video", "audio"}
        content : Tensor or sequence of str
            Pixels ``[B, 3, H, W]`` or ``[B, 3, T, H, W]`` in 0..1 or in 8 bits, mono audio ``[B, 1, N]`` in -1..1 or as
            integer PCM, a text or several. A `TextHint` warns about words that the text autoencoder does not have,
            and about texts too long for it.
        sample_rate : int, optional
            Of audio, in Hz; the model's own by default.
        seconds : float, optional
            Of audio: cut it, or let silence follow, to the shape that `latent_shape` gives for so many seconds. By
            default all of it, and silence to the end of the last unit that the network takes; of published models, the
            model's own length.

        Raises
        ------
        ValueError
            For what the model lacks, other shapes, and numbers that cannot be right.
        """
        autoencoder = self._autoencoder(name)
        if name == "text":
            texts = _texts(content)
            warn(encoding_hints(texts, autoencoder.config))
            return autoencoder.encode(texts)
        weight = next(autoencoder.parameters())
        if name != "audio":
            return autoencoder.encode(pixels_to_encode(name, content).to(weight))
        samples = as_samples(content, "The audio to encode").to(weight)
        steps = None if seconds is None else self.latent_shape("audio", seconds=seconds)[1]
        network = self.config.diffuser.networks.get("audio")
        whole = steps is None and network is not None and not autoencoder.config.released_processing
        if whole and samples.ndim == 3:  # other shapes are refused below
            rate = autoencoder.config.mel.sample_rate
            count = -(-samples.shape[-1] * rate // (rate if sample_rate is None else as_rate(sample_rate)))
            steps = audio_steps(count, autoencoder.config, multiple_of(network))
        return autoencoder.encode(samples, sample_rate, steps=steps)

    @torch.inference_mode()
    def decode(self, name: str, latents: Tensor, **options: Any) -> Tensor | list[str]:
        """Latents in VAE units -> pixels in 0..1, audio ``[B, 1, N]`` in -1..1, or texts.

        `options` are those of `TextAutoencoder.decode`, for texts. `ValueError` for what the model lacks, other shapes,
        and numbers that cannot be right.
        """
        autoencoder = self._autoencoder(name)
        latents = latent_to_decode(name, latents, autoencoder)
        return autoencoder.decode(latents.to(next(autoencoder.parameters())), **options)

    def latent_shape(
        self, name: str, image_size: int | None = None, frames: int | None = None, seconds: float | None = None
    ) -> tuple[int, ...]:
        """Shape of one latent, without the batch axis; of the model's own size where none is given.

        `frames` or `seconds` alone set the length of videos and of audio, see `codi_backend.modalities.lengths`.
        `ValueError` for a size that does not fit the networks.
        """
        self._autoencoder(name)
        return latent_shape(self.config, name, image_size=image_size, frames=frames, seconds=seconds)

    def _lacking(self, name: str) -> list[str]:
        """The parts that this model would need to generate a modality."""
        network = modality(name).network
        parts = set(self.parts())
        if name == "video" and f"diffuser.{network}" in parts and not self.config.diffuser.networks[network].temporal:
            parts.remove(f"diffuser.{network}")  # it generates single images only
        return [part for part in (f"diffuser.{network}", f"autoencoders.{network}") if part not in parts]

    def _advice(self, part: str) -> str:
        edition = self.report.edition if self.report else ""
        if system_by_edition(edition) is not None:
            return remedy(part, edition)
        return f"choose from {', '.join(self.outputs)}"

    def _autoencoder(self, name: str) -> nn.Module:
        network = modality(name).network
        if network not in self.autoencoders:
            raise ValueError(f"This model has no {name} autoencoder; it has {', '.join(self.autoencoders) or 'none'}.")
        return self.autoencoders[network]


def _texts(content: str | Sequence[str]) -> list[str]:
    texts = [content] if isinstance(content, str) else list(content)
    if not texts:
        raise ValueError("There is no prompt: give at least one text, which may be empty.")
    return texts
