"""The small model's stages, from nothing to the shipped weights: what each reads, how long it trains, what it writes.

A run folder holds ``config.json`` (the configuration, completed as stages measure their scale factors), ``parts/`` (one
file a part), the latents of the training scenes, and one folder a stage with its state and loss curve. The stages
"versatile" and its refinements make another model, Versatile Diffusion, in a run folder of its own, from parts of the
shipped small CoDi.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import nn

from .. import mini, vd_mini
from ..checkpoints import State, read_parts, resolve, save_parts
from ..config import CoDiConfig
from ..data import ShapesAndChimes
from ..modality import MODALITIES, modality
from ..model import CoDi
from ..output_folder import replacing
from ..parts import FIELDS, build, part_names
from .alignment import AlignmentStage
from .autoencoders import AutoencoderStage
from .bridging import BridgingStage
from .diffusers import DiffuserStage
from .environment import EnvironmentStage
from .execution import Execution
from .latents import SceneLatents
from .listening import ListeningStage
from .loop import Options, Stage, train
from .prompts import PromptStage
from .samples import write_samples
from .text_autoencoder import TextAutoencoderStage
from .versatile import VersatileStage, start_from
from .versatile_scenes import VersatileScenes

VERSATILE = ("versatile", "refine_versatile", "refine2_versatile")  # the stages of the other model
OPTIONS = {
    "autoencoder_image": Options(steps=2500, batch_size=16, learning_rate=1.5e-3),
    "autoencoder_audio": Options(steps=1000, batch_size=16, learning_rate=1.5e-3),
    "autoencoder_text": Options(steps=3000, batch_size=64),
    "prompts": Options(steps=2000, batch_size=256),
    "bridging_image": Options(steps=1500, batch_size=64),
    "bridging_audio": Options(steps=900, batch_size=64),
    "bridging_video": Options(steps=600, batch_size=16, warmup=50),
    "diffuser_image": Options(steps=10000, batch_size=32),
    "refine_image": Options(steps=2000, batch_size=64, learning_rate=1e-3, warmup=50, save_every=250),
    "refine2_image": Options(steps=1500, batch_size=64, learning_rate=1e-3, warmup=50, save_every=250),
    "refine3_image": Options(steps=4500, batch_size=64, learning_rate=1e-3, warmup=50, save_every=250),
    "diffuser_audio": Options(steps=6000, batch_size=32),
    "refine_audio": Options(steps=1000, batch_size=32, learning_rate=1e-3, warmup=50, save_every=250),
    "diffuser_text": Options(steps=4000, batch_size=128),
    "refine_text": Options(steps=1500, batch_size=128, warmup=50, save_every=250),
    "refine4_image": Options(steps=1000, batch_size=512, warmup=100, save_every=250),
    "diffuser_video": Options(steps=1940, batch_size=64, warmup=100, save_every=250),
    "refine5_image": Options(steps=1160, batch_size=512, warmup=100, save_every=250),
    "refine_video": Options(steps=780, batch_size=64, warmup=100, save_every=250),
    "environment_image": Options(steps=5000, batch_size=64),
    "environment_text": Options(steps=1500, batch_size=64, warmup=50),
    "environment_audio": Options(steps=3000, batch_size=64),
    "environment_video": Options(steps=500, batch_size=16, warmup=50, save_every=100),
    "environment_audio_video": Options(steps=500, batch_size=16, warmup=50, save_every=100),
    "alignment_image_text": Options(steps=600, batch_size=32, learning_rate=1.5e-3, warmup=50, save_every=100),
    "alignment_text_audio": Options(steps=600, batch_size=32, learning_rate=1.5e-3, warmup=50, save_every=100),
    "alignment_audio_video": Options(steps=450, batch_size=8, learning_rate=1.5e-3, warmup=50, save_every=50),
    "realign_text_audio": Options(steps=200, batch_size=32, learning_rate=7e-4, warmup=50, save_every=50),
    "listening_image": Options(steps=2400, batch_size=64, learning_rate=1.5e-3, warmup=50, save_every=200),
    "listening2_image": Options(steps=1200, batch_size=64, learning_rate=1e-3, warmup=50, save_every=100),
    "listening_audio": Options(steps=800, batch_size=32, learning_rate=1.5e-3, warmup=50, save_every=100),
    "listening_video": Options(steps=450, batch_size=8, learning_rate=1e-3, warmup=50, save_every=50),
    "environment2_audio_video": Options(steps=450, batch_size=32, learning_rate=7e-4, warmup=30, save_every=50),
    "listening3_image": Options(steps=850, batch_size=64, learning_rate=1e-3, warmup=50, save_every=100),
    "listening2_audio": Options(steps=1200, batch_size=32, learning_rate=1e-3, warmup=50, save_every=50),
    "listening2_video": Options(steps=900, batch_size=8, learning_rate=1e-3, warmup=50, save_every=50),
    "listening3_audio": Options(steps=900, batch_size=32, learning_rate=1e-3, warmup=50, save_every=50),
    "listening_text": Options(steps=1200, batch_size=64, learning_rate=1e-3, warmup=50, save_every=200),
    "environment3_audio_video": Options(steps=700, batch_size=32, learning_rate=7e-4, warmup=30, save_every=50),
    "listening4_audio": Options(steps=1400, batch_size=32, learning_rate=1e-3, warmup=50, save_every=50),
    "listening3_video": Options(steps=2400, batch_size=8, learning_rate=1e-3, warmup=50, save_every=50),
    "listening5_audio": Options(steps=1300, batch_size=32, learning_rate=1e-3, warmup=50, save_every=50),
    "listening4_video": Options(steps=1100, batch_size=8, learning_rate=1e-3, warmup=50, save_every=50),
    "listening2_text": Options(steps=1000, batch_size=64, learning_rate=1e-3, warmup=50, save_every=200),
    "refine2_video": Options(steps=1230, batch_size=64, warmup=100),
    "environment2_image": Options(steps=110, batch_size=512, warmup=27),
    "environment2_text": Options(steps=560, batch_size=512, warmup=50),
    "environment4_audio_video": Options(steps=1200, batch_size=128, warmup=50),
    "listening6_audio": Options(steps=1390, batch_size=128, warmup=50),
    "listening3_text": Options(steps=1110, batch_size=256, warmup=50),
    "listening5_video": Options(steps=1980, batch_size=64, warmup=100),
    "refine6_image": Options(steps=1980, batch_size=512, warmup=100, save_every=4000, log_every=50),
    "refine3_video": Options(steps=4670, batch_size=64, warmup=100, save_every=4000, log_every=50),
    "listening6_video": Options(steps=3590, batch_size=64, warmup=100, save_every=4000, log_every=50),
    "versatile": Options(steps=3600, batch_size=48, warmup=100, save_every=200, log_every=40),
    "refine_versatile": Options(steps=3000, batch_size=48, warmup=100, save_every=200, log_every=40),
    "refine2_versatile": Options(steps=1200, batch_size=48, warmup=50, save_every=200, log_every=40, keep=0.5),
}
STAGES = tuple(name for name in OPTIONS if name not in VERSATILE)
SCENES = 16_000
_MEASURED_SCENES = 512
_FILE_SIZE = 15_000_000  # bytes

# Standard deviation of scaled latents, 1 elsewhere. At equal noise a text is thus more readable than a picture: texts
# settle early what they say, while pictures, which are read late, can still follow.
_SPREAD = {"text": 2.0}

# What a diffuser is prompted with. Pictures and sounds never meet: that bridge is left to the text.
_PROMPTS = {
    "image": ("text",),
    "video": ("text",),
    "audio": ("text", "audio", "video"),
    "text": ("text", "image", "audio", "video"),
}
# Pairs of latent alignment in the paper's order.
_PAIRS = (("image", "text"), ("text", "audio"), ("audio", "video"))
# The same pairs, listener first, by the stream that learns to follow.
_LISTENING = {
    "text": (("text", "image"), ("text", "audio")),
    "image": (("image", "text"),),
    "audio": (("audio", "text"), ("audio", "video")),
    "video": (("video", "audio"), ("image", "text")),
}


def run_stage(
    name: str,
    out: Path,
    options: Options | None = None,
    report: Callable[[str], None] = print,
    execution: Execution | None = None,
) -> None:
    """Train one stage of the small model in the run folder `out`; the stages before it must be there.

    A stage that is finished is left as it is: later stages may have trained its parts further.
    """
    if name not in OPTIONS:
        raise ValueError(f"There is no stage {name!r}; choose from {', '.join(OPTIONS)}.")
    options = options or OPTIONS[name]
    out.mkdir(parents=True, exist_ok=True)
    (out / "parts").mkdir(exist_ok=True)
    if name in VERSATILE:
        _begin_versatile(out)
    torch.manual_seed(options.seed)
    execution = execution or Execution()
    accelerator = execution.accelerator()
    with accelerator.main_process_first():  # it encodes the scenes, the others read them
        stage, parts = _build(name, out, report, execution.workers, accelerator.device)
    if all(_has_record(out / "parts" / f"{part}.safetensors", name, options) for part in parts):
        report(f"{name} is finished; remove {out / name} and what it wrote in {out / 'parts'} to train it again.")
        return
    record = train(stage, options, out, report, execution)
    if accelerator.is_main_process:
        config = _config(out)
        if name.startswith("autoencoder"):
            config = _with_statistics(config, name.removeprefix("autoencoder_"), stage.autoencoder.eval())
            (out / "config.json").write_text(config.to_json())
        for part, module in parts.items():
            path = out / "parts" / f"{part}.safetensors"
            earlier = [r for r in read_parts(path).training if r["stage"] != name] if path.exists() else []
            save_parts(path, config, {part: module.state_dict()}, [*earlier, record])
    accelerator.wait_for_everyone()


def _has_record(path: Path, stage: str, options: Options) -> bool:
    if not path.exists():
        return False
    records = [record for record in read_parts(path).training if record["stage"] == stage]
    usual = {f.name: f.default for f in dataclasses.fields(Options) if f.default is not dataclasses.MISSING}
    return any(usual | record["options"] == dataclasses.asdict(options) for record in records)


def pack(out: Path, destination: Path) -> list[Path]:
    """Write the finished run as half-precision checkpoint files with the configuration.

    A part is one file, or several if it is large, of which the first has its training record. Files of an earlier pack
    in `destination` are replaced when all are written.
    """
    config = _config(out)
    parts = list(CoDi(config).parts())
    sources = {part: _part_file(out, part) for part in parts}
    of_part = re.compile(rf"{re.escape(config.name)}_({'|'.join(map(re.escape, parts))})(-\d+-of-\d+)?\.safetensors")
    # With the files of an earlier run in another number, a part would be read twice.
    earlier = [path.name for path in destination.glob("*.safetensors") if of_part.fullmatch(path.name)]
    written = []
    with replacing(destination, earlier) as folder:
        for part, source in sources.items():
            checkpoint = read_parts(source)
            shards = list(_shards(checkpoint.parts[part]))
            for number, state in enumerate(shards, 1):
                name = f"{config.name}_{part}{f'-{number}-of-{len(shards)}' if len(shards) > 1 else ''}.safetensors"
                training = checkpoint.training if number == 1 else []
                save_parts(folder / name, config, {part: state}, training, torch.float16)
                written.append(destination / name)
    return written


def _shards(state: State) -> Iterator[State]:
    """The tensors in their order, cut where a half-precision file would grow too large for a repository."""
    shard: State = {}
    size = 0
    for key, value in state.items():
        if shard and size + 2 * value.numel() > _FILE_SIZE:
            yield shard
            shard, size = {}, 0
        shard[key] = value
        size += 2 * value.numel()
    yield shard


def _build(
    name: str, out: Path, report: Callable[[str], None], workers: int, device: torch.device
) -> tuple[Stage, dict[str, nn.Module]]:
    """The stage, and the parts that it trains by name."""
    config = _config(out)
    kind, _, rest = name.partition("_")
    kind = kind.rstrip("0123456789")  # of its round
    if kind == "autoencoder":
        stage: Stage = TextAutoencoderStage(config) if rest == "text" else AutoencoderStage(config, rest)
        return stage, {name.replace("_", "s.", 1): stage.autoencoder}
    codi = CoDi(config).to(device)
    parts = codi.parts()
    encode = functools.partial(SceneLatents.load_or_encode, out, codi, report=report, workers=workers)
    if name in VERSATILE:
        own = {part: module for part, module in parts.items() if part not in _lent()}
        _load(codi, out, *(_lent() if name == VERSATILE[0] else parts))
        if name == VERSATILE[0]:
            start_from(codi.diffuser, read_parts("mini", ["diffuser.image"]).parts["diffuser.image"])
        scenes = VersatileScenes.load_or_encode(out, codi, report=report)
        stage = VersatileStage(codi.diffuser, codi.prompt_encoders["text"], scenes)
        stage.name = name
        return stage, own
    if name == "prompts":
        _load(codi, out, "autoencoders.image", "autoencoders.audio")
        stage = PromptStage(config, encode(("image", "audio"), (), SCENES))
        return stage, {"prompt_encoders.text": stage.text_encoder}
    if kind == "bridging":
        part = "prompt_encoders.audio" if rest == "audio" else "prompt_encoders.image"
        _load(codi, out, "prompt_encoders.text", *([part] if rest == "video" else []))
        return BridgingStage(codi, rest), {part: parts[part]}
    aligning, listening = kind in ("alignment", "realign"), kind == "listening"
    pair, *others = _LISTENING[rest] if listening else (tuple(rest.split("_")),)
    earlier = _PAIRS[: _PAIRS.index(pair)] if aligning else tuple(others)
    replayed = [m for both in earlier for m in both] + (["image"] if rest == "video" else [])
    streams = dict.fromkeys([*pair, *replayed])
    prompts = _PROMPTS[rest] if kind in ("diffuser", "refine") else ("text",)
    _load(codi, out, *(f"autoencoders.{modality(m).network}" for m in streams))
    _load(codi, out, *(f"prompt_encoders.{modality(m).network}" for m in {"text", *prompts}))
    networks = {f"diffuser.{modality(m).network}" for m in streams}
    if kind != "diffuser" or rest == "video":
        _load(codi, out, *networks)
    data = encode(tuple(streams), prompts, SCENES)
    text_encoder = codi.prompt_encoders["text"]
    if kind == "environment":
        stage = EnvironmentStage(codi.diffuser, text_encoder, data, pair)
    elif listening:
        stage = ListeningStage(codi.diffuser, text_encoder, data, (pair, *earlier))
        networks = {f"diffuser.{modality(rest).network}"}
    elif aligning:
        stage = AlignmentStage(codi.diffuser, text_encoder, data, pair, earlier, teach=True)
    else:
        refine = kind == "refine"
        stage = DiffuserStage(codi.diffuser, text_encoder, data, rest, prompts, refine=refine, learn_prompts=True)
    stage.name = name
    if kind != "environment":
        stage.samples = functools.partial(write_samples, codi, pair)
    return stage, {part: parts[part] for part in sorted(networks)}


def _lent() -> list[str]:
    """The parts that the small Versatile Diffusion has from the small CoDi."""
    return [part for part in part_names(vd_mini.CONFIG) if part in FIELDS]


def _begin_versatile(out: Path) -> None:
    """Write what the stage begins with: the configuration, and the parts that stay as they are."""
    if (out / "config.json").exists():
        if _config(out).diffuser.contexts:
            return
        raise ValueError(f"{out} is the run folder of another model: train {VERSATILE[0]} in a new one.")
    shipped = [read_parts(file) for file in resolve("mini")]
    usual = shipped[0].config
    scales = {}
    for name in ("image", "text"):
        field = f"{name}_autoencoder"
        # Texts have no one to follow or lead here.
        scale_factor = round(getattr(usual, field).scale_factor / _SPREAD.get(name, 1.0), 4)
        scales[field] = dataclasses.replace(getattr(vd_mini.CONFIG, field), scale_factor=scale_factor)
    config = dataclasses.replace(vd_mini.CONFIG, **scales)
    for checkpoint in shipped:
        for part in checkpoint.parts.keys() & set(_lent()):
            with torch.device("meta"):
                needed = build(part, config).state_dict()  # without the layers for videos
            state = {key: checkpoint.parts[part][key] for key in needed}
            save_parts(out / "parts" / f"{part}.safetensors", config, {part: state}, checkpoint.training)
    (out / "config.json").write_text(config.to_json())


def _load(codi: CoDi, out: Path, *names: str) -> None:
    """Load trained parts of the run folder into the model."""
    parts = codi.parts()
    for name in sorted(names):
        parts[name].load_state_dict(_state(out, name))


def _state(out: Path, part: str) -> State:
    return read_parts(_part_file(out, part)).parts[part]


def _part_file(out: Path, part: str) -> Path:
    path = out / "parts" / f"{part}.safetensors"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: train the stage that makes {part} first.")
    return path


def _config(out: Path) -> CoDiConfig:
    path = out / "config.json"
    return CoDiConfig.from_json(path.read_text()) if path.exists() else mini.CONFIG


@torch.inference_mode()
def _with_statistics(config: CoDiConfig, network: str, autoencoder: nn.Module) -> CoDiConfig:
    """Set the factor that gives the latents of some scenes their spread, and what they then are on average."""
    place = next(autoencoder.parameters()).device
    means = dict(config.diffuser.latent_means)
    for name in (name for name, row in MODALITIES.items() if row.network == network):  # pictures before videos
        data = ShapesAndChimes(_MEASURED_SCENES, (name,), seed=1, leave_out=0.0)
        items = [data[i][name] for i in range(_MEASURED_SCENES)]
        latents = autoencoder.encode(items if name == "text" else torch.stack(items).to(place))
        if name == network:
            scale_factor = round(_SPREAD.get(name, 1.0) / float(latents.std()), 4)
        mean = scale_factor * latents.transpose(0, 1).flatten(1).mean(1)
        means[name] = tuple(round(value, 4) for value in mean.tolist())
    field = f"{network}_autoencoder"
    return dataclasses.replace(
        config,
        diffuser=dataclasses.replace(config.diffuser, latent_means=means),
        **{field: dataclasses.replace(getattr(config, field), scale_factor=scale_factor)},
    )
