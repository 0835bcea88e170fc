"""Configurations of the networks, stored as JSON inside our checkpoints."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from .modality import modality


@dataclass(frozen=True)
class UNetConfig:
    """One diffuser network (SPEC section 2.1; the text network: section 2.3).

    The tuples run over the resolution levels, finest first. `environment_*` describe the environment encoder, whose
    first convolution is half as wide as `model_channels`.

    Attributes
    ----------
    environment_time : {None, "frames", "rows"}
        Whether streams are told, and hear, what happens when: None pools over time, as published; otherwise there is an
        environment token per frame of a video, or per row of the feature map, whose rows are time steps in sounds.
    temporal_connectors : int
        Through how many blocks of attention over time the tokens of another stream pass before the connectors hear
        them, in a stream that keeps time and hears one that does; none as published.
    text_positions : int or None
        For the text network, the number of positions that every feature has (`second_dim`, 4 in the published one).
    temporal : bool
        Whether every residual block is followed by a spatio-temporal block, which acts on 5-D latents only.
    clip_attention : tuple of bool
        At which resolution levels spatio-temporal blocks also attend to every place in every frame; none as published.
    temporal_norm : {"frames", "channels"}
        What the temporal attention normalises over. Over the frames, as published (SPEC section 2.2), all that holds
        for the whole clip is lost on it, above all what the prompt says. The environment encoder, which no prompt
        reaches and which is to tell of changes, has it over the frames always.
    """

    in_channels: int
    model_channels: int
    channel_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: tuple[int, ...] = (2, 2, 2, 2)
    attention: tuple[bool, ...] = (True, True, True, False)
    connector: tuple[bool, ...] = (True, True, True, False)
    num_heads: int = 8
    context_dim: int = 768
    environment_dim: int = 1280
    environment_mult: tuple[int, ...] = (1, 2, 4)
    environment_res_blocks: tuple[int, ...] = (1, 1, 1)
    environment_time: str | None = None
    temporal_connectors: int = 0
    temporal: bool = False
    temporal_norm: str = "frames"
    clip_attention: tuple[bool, ...] = (False, False, False, False)
    text_positions: int | None = None

    @property
    def aligned(self) -> bool:
        """Whether there are connectors, and with them an environment encoder."""
        return any(self.connector)


@dataclass(frozen=True)
class DiffuserConfig:
    """The diffuser: one network per latent space, and how streams listen to each other.

    Attributes
    ----------
    networks : dict of str to UNetConfig
        Keys are `Modality.network` names.
    contexts : tuple of str
        Kinds of context, such as ("text", "image"), for each of which there is a set of transformers that all networks
        share, and with which they share a time embedding too (Versatile Diffusion, SPEC_VD section 2). Empty: every
        network has transformers and a time embedding of its own (CoDi).
    middle_as_first_skip : bool
        Released quirk Q-SKIP-ALIAS (SPEC section 2): the first decoder block gets the middle block's output twice.
    listen : {"sum", "mean"}
        How a stream combines what several others tell it through a connector.
    prediction : {"eps", "v"}
        What the networks' last layers give. The diffuser returns the noise (eps) in either case; a small network cannot
        copy its noisy input so exactly as eps needs it at high noise, which v spares it.
    latent_means : dict of str to tuple of float
        By modality, the mean of each channel over the scaled latents that the diffuser was trained on; 0 where it is
        not given, as published. See `codi_backend.diffusion.mean_latent`.
    """

    networks: dict[str, UNetConfig] = field(default_factory=dict)
    contexts: tuple[str, ...] = ()
    middle_as_first_skip: bool = False
    listen: str = "sum"
    prediction: str = "eps"
    latent_means: dict[str, tuple[float, ...]] = field(default_factory=dict)

    def only(self, networks: Collection[str], contexts: Collection[str] | None = None) -> DiffuserConfig:
        """The same diffuser with some of its networks and, if given, some of its kinds of context."""
        kept = {name: network for name, network in self.networks.items() if name in networks}
        kinds = tuple(kind for kind in self.contexts if contexts is None or kind in contexts)
        return dataclasses.replace(self, networks=kept, contexts=kinds)

    def deaf(self, streams: Collection[str]) -> list[str]:
        """Those of some streams, named by modality, that have no part in latent alignment."""
        return [name for name in streams if not self.networks[modality(name).network].aligned]


@dataclass(frozen=True)
class TextEncoderConfig:
    """A CLIP text transformer with a projection (SPEC section 3.1).

    `token_dim` factorises the token table (`vocab_size x token_dim`, then a linear map to `width`), which keeps a small
    model small; None means a full-width table as in CLIP. `mlp` is the width between a layer's two feed-forward maps,
    four times `width` if None.
    """

    vocab_size: int = 49408
    positions: int = 77
    width: int = 768
    layers: int = 12
    heads: int = 12
    embedding_dim: int = 768
    token_dim: int | None = None
    mlp: int | None = None


@dataclass(frozen=True)
class ImageAutoencoderConfig:
    """Arguments of diffusers' `AutoencoderKL`, and the factor between VAE latents and diffuser latents.

    `patch` folds squares of that many pixels into channels before the VAE, which makes a small model cheap (1: off).
    `image_size` (pixels) and `frames` are what the model generates by default, `frame_rate` the frames of a second.
    """

    latent_channels: int = 4
    patch: int = 1
    channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    norm_groups: int = 32
    scale_factor: float = 0.18215
    image_size: int = 256
    frames: int = 8
    frame_rate: float = 4.0


@dataclass(frozen=True)
class MelConfig:
    """Log-mel spectrograms (SPEC section 5.2): magnitudes, Slaney bands, natural logarithm of ``max(x, floor)``."""

    sample_rate: int = 16000
    n_fft: int = 1024
    hop: int = 160
    bands: int = 64
    f_min: float = 0.0
    f_max: float = 8000.0
    floor: float = 1e-5


@dataclass(frozen=True)
class VocoderConfig:
    """A HiFi-GAN (SPEC section 5.2), published size by default.

    Attributes
    ----------
    channels : int
        Before the first upsampling, each of which halves them.
    rates, kernels : tuple of int
        Factor and kernel size of every upsampling.
    block_kernels, dilations : tuple of int
        Kernel size of every residual block that follows an upsampling, and dilations within each block.
    """

    channels: int = 1024
    rates: tuple[int, ...] = (5, 4, 2, 2, 2)
    kernels: tuple[int, ...] = (16, 16, 8, 4, 4)
    block_kernels: tuple[int, ...] = (3, 7, 11)
    dilations: tuple[int, ...] = (1, 3, 5)


@dataclass(frozen=True)
class AudioAutoencoderConfig:
    """The mel VAE; `mel_mean` and `mel_std` normalise log-mels to about unit range, `patch` as for images.

    Attributes
    ----------
    released_processing : bool
        Treat sounds as the released code does (SPEC section 5.2): before encoding, centre each, bring its peak to 0.5
        and cut or pad it to `seconds`; before decoding, bring latents that got out of hand back into range.
    vocoder : VocoderConfig or None
        What turns log-mels into waveforms; None for the approximate inverse of the log-mel.
    """

    latent_channels: int = 8
    patch: int = 1
    channels: tuple[int, ...] = (128, 256, 512)
    layers_per_block: int = 2
    norm_groups: int = 32
    scale_factor: float = 0.9228
    seconds: float = 10.24
    mel: MelConfig = field(default_factory=MelConfig)
    mel_mean: float = 0.0
    mel_std: float = 1.0
    released_processing: bool = False
    vocoder: VocoderConfig | None = None


@dataclass(frozen=True)
class TransformerConfig:
    """Size of a language model: `hidden` is the width of its feed-forward layers."""

    vocab_size: int
    positions: int
    width: int = 768
    hidden: int = 3072
    layers: int = 12
    heads: int = 12


@dataclass(frozen=True)
class TextAutoencoderConfig:
    """Optimus (SPEC section 5.3): BERT as encoder, GPT-2 as decoder.

    The last three tokens of the decoder's vocabulary are padding, beginning and end of a text.

    Attributes
    ----------
    words : tuple of str or None
        The words and punctuation marks of a model that knows few (see `WordList`); None for the vocabularies of BERT
        and GPT-2, which are files.
    greedy : bool
        Whether decoding takes the likeliest token unless it is told otherwise, or draws one.
    word_pieces : int or None
        How many word pieces of a text are encoded; None for as many as the encoder has positions for.
    drop_words : bool
        Whether words of a decoded text that repeat the one before are dropped before phrases that do are, as CoDi does;
        Versatile Diffusion begins with phrases, which differs for punctuation (SPEC_VD section 6).
    """

    latent_dim: int = 768
    scale_factor: float = 4.3108
    words: tuple[str, ...] | None = None
    greedy: bool = False
    word_pieces: int | None = None
    drop_words: bool = True
    encoder: TransformerConfig = field(default_factory=lambda: TransformerConfig(28996, 512))
    decoder: TransformerConfig = field(default_factory=lambda: TransformerConfig(50260, 1024))


@dataclass(frozen=True)
class VisionEncoderConfig:
    """A CLIP vision transformer with a projection (SPEC section 3.1); the defaults are the published one.

    Attributes
    ----------
    mlp : int
        Width between a layer's two feed-forward maps.
    temporal : bool
        Whether every layer has a temporal block, which acts on videos of more than one frame only.
    image_side, video_side : int
        Side of the squares that images and videos are first brought to, in pixels.
    frames : int or None
        Of longer videos, that many frames are looked at, evenly spread; None for all.
    """

    image_size: int = 224
    patch: int = 14
    width: int = 1024
    layers: int = 24
    heads: int = 16
    mlp: int = 4096
    embedding_dim: int = 768
    temporal: bool = True
    image_side: int = 512
    video_side: int = 256
    frames: int | None = None


@dataclass(frozen=True)
class ClapConfig:
    """CLAP's audio transformer (HTSAT) with a projection (SPEC section 3.2); the defaults are the published one.

    Attributes
    ----------
    width : int
        Channels of the first stage; each further stage has twice as many.
    depths, heads : tuple of int
        Blocks and attention heads of each stage.
    window : int
        Side of an attention window, in patches.
    image_size, patch : int
        Side of the square that the log-mel is folded to, and of a patch of it.
    input_rate : int
        Sounds are brought to this rate and then to `mel.sample_rate`: the encoder hears nothing above half of it.
    samples : int
        Length of every sound at `mel.sample_rate`, after cutting or repeating.
    classes : int
        Outputs of the tagging layers, which the published file holds and the embedding does not use.
    """

    width: int = 256
    depths: tuple[int, ...] = (2, 2, 12, 2)
    heads: tuple[int, ...] = (4, 8, 16, 32)
    window: int = 8
    image_size: int = 256
    patch: int = 4
    embedding_dim: int = 768
    input_rate: int = 16000
    samples: int = 480000
    mel: MelConfig = field(
        default_factory=lambda: MelConfig(
            sample_rate=48000, n_fft=1024, hop=480, bands=64, f_min=50.0, f_max=14000.0, floor=1e-10
        )
    )
    classes: int = 527

    @property
    def seconds(self) -> float:
        """How much audio the encoder takes."""
        return self.samples / self.mel.sample_rate


@dataclass(frozen=True)
class CoDiConfig:
    """Everything that shapes a CoDi model. A part that is None does not exist in this model.

    Attributes
    ----------
    name : str
        Shown in reports and node titles.
    guidance : float
        Default classifier-free guidance scale.
    alignment_scale : float
        Default of how far what a stream hears leads it, see `codi_backend.sampling.sample`.
    companions : dict of str to tuple of str
        By modality, in the company of which streams an output is made, whether they were asked for or not, see
        `codi_backend.CoDi.companions`.
    candidates : int
        Default number of candidates for a result of streams that hear each other, see `codi_backend.sampling.sample`.
    sampler : str
        Default sampler, see `codi_backend.sampling.SAMPLERS`.
    steps : int
        Default number of sampling steps.
    """

    name: str = "codi"
    diffuser: DiffuserConfig = field(default_factory=DiffuserConfig)
    text_encoder: TextEncoderConfig | None = None
    image_encoder: VisionEncoderConfig | None = None
    audio_encoder: ClapConfig | None = None
    text_autoencoder: TextAutoencoderConfig | None = None
    image_autoencoder: ImageAutoencoderConfig | None = None
    audio_autoencoder: AudioAutoencoderConfig | None = None
    guidance: float = 7.5
    alignment_scale: float = 1.0
    companions: dict[str, tuple[str, ...]] = field(default_factory=dict)
    candidates: int = 1
    sampler: str = "dpmpp_2m"
    steps: int = 20

    def sampling(
        self, steps: int | None = None, sampler: str | None = None, guidance: float | Sequence[float] | None = None
    ) -> dict[str, Any]:
        """How to sample, by name: as given, and this model's own way where nothing is."""
        given = {"steps": steps, "sampler": sampler, "guidance": guidance}
        return {name: getattr(self, name) if value is None else value for name, value in given.items()}

    def company(self, outputs: Collection[str], held: Collection[str] = (), alignment: str = "paper") -> set[str]:
        """In whose company outputs are made, beside each other's and that of the streams that are held."""
        if alignment != "paper":  # nobody would hear it
            return set()
        made = set(outputs) - set(held)
        return {along for name in made for along in self.companions.get(name, ())} - {*outputs, *held}

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @staticmethod
    def from_reference(config: dict[str, Any]) -> CoDiConfig:
        """Read a configuration in the original project's terms; see `reference_config.from_reference`."""
        from .reference_config import from_reference

        return from_reference(config)

    @classmethod
    def from_json(cls, text: str) -> CoDiConfig:
        """Read what `to_json` wrote. A `ValueError` names the field that is wrong; see `config_json.from_json`."""
        from .config_json import from_json

        return from_json(cls, text)
