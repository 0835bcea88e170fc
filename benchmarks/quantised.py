"""Size, error and memory of quantised weights, beside those of other precisions.

    python benchmarks/quantised.py sizes                         # of the published models, without weights
    python benchmarks/quantised.py golden                        # error on the golden cases of the original code
    python benchmarks/quantised.py networks --model mini         # error and memory of one forward pass
    python benchmarks/quantised.py networks --model published --parts diffuser.audio prompt_encoders.text

Errors are the norm of the difference, relative to the norm of the reference: the golden output, or the output in fp32.
`networks` converts files with `codi convert`, and runs each part in a process of its own. The weights of `mini` are
trained; those of `tiny` and `published` are normal numbers of variance 1 / fan-in. Quantised weights compute in fp32.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
import tiny  # noqa: E402
from detweights import det_array, fill_, is_buffer  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from codi_backend.checkpoints import codi as published  # noqa: E402
from codi_backend.checkpoints import versatile  # noqa: E402
from codi_backend.checkpoints.convert import convert  # noqa: E402
from codi_backend.checkpoints.diffuser_names import to_reference  # noqa: E402
from codi_backend.checkpoints.native import cut, read_parts, save_parts  # noqa: E402
from codi_backend.checkpoints.parts import build, part_names  # noqa: E402
from codi_backend.checkpoints.quantisation import LAYERS, PLAIN, quantisable_layers  # noqa: E402
from codi_backend.conditioning.prompt import Prompt  # noqa: E402
from codi_backend.config import CoDiConfig  # noqa: E402
from codi_backend.config.reference import diffuser_from_reference  # noqa: E402
from codi_backend.modalities import latent_shape  # noqa: E402
from codi_backend.models.diffuser import Diffuser  # noqa: E402
from codi_backend.peak_memory import forget_peak, peak  # noqa: E402
from codi_backend.pipeline import CoDi  # noqa: E402
from codi_backend.sampling import samplers  # noqa: E402
from codi_backend.sampling.settings import AlignmentSettings, SamplingSettings  # noqa: E402

GOLDEN = ROOT / "tests" / "golden"
DTYPES = ("fp32", "bf16", "fp16", "fp8", "int8")
COMPUTE = {"bf16": torch.bfloat16, "fp16": torch.float16}
VIDEO_WITH_AUDIO = (
    "diffuser.image",
    "diffuser.audio",
    "prompt_encoders.text",
    "autoencoders.image",
    "autoencoders.audio",
)
CASES = ("image", "video", "text", "audio", "image_mixed_cond")
JOINT = ("joint_video_audio", "joint_image_audio", "joint_image_text_audio")
RUNS = ("image__from__text", "image__from__video", "text__from__image", "video_audio__from__text")


def relative(value: torch.Tensor, reference: torch.Tensor) -> float:
    """The norm of the difference, relative to that of the reference."""
    return float((value.float() - reference.float()).norm() / reference.float().norm())


def stored_bytes(part: str, config: CoDiConfig, dtype: str) -> int:
    """Bytes of the weights of a part as `codi convert` writes them."""
    with torch.device("meta"):
        network = build(part, config)
    plain = COMPUTE.get(dtype, PLAIN if dtype in ("fp8", "int8") else torch.float32).itemsize
    layers = quantisable_layers(part, network) if dtype in ("fp8", "int8") else set()
    total = 0
    for key, value in network.state_dict().items():
        layer, _, name = key.rpartition(".")
        size = plain if value.is_floating_point() else value.element_size()
        total += value.numel() * (1 if name == "weight" and layer in layers else size)
    return total


def sizes() -> None:
    """Print the sizes of the published models."""
    print("| weights | parameters, millions | " + " | ".join(f"{dtype}, GB" for dtype in DTYPES) + " |")
    print("|---|---|" + "---|" * len(DTYPES))
    for config in (published.CONFIG, versatile.CONFIG):
        parts = {part: [stored_bytes(part, config, dtype) for dtype in DTYPES] for part in part_names(config)}
        rows = {f"{config.name}: {part}": size for part, size in parts.items()}
        rows[f"**{config.name}: all**"] = [sum(column) for column in zip(*parts.values())]
        if config is published.CONFIG:
            some = [parts[part] for part in VIDEO_WITH_AUDIO]
            rows["**video with audio from text**"] = [sum(column) for column in zip(*some)]
        for name, row in rows.items():
            print(f"| {name} | {row[0] / 4e6:.0f} | " + " | ".join(f"{size / 1e9:.2f}" for size in row) + " |")


def golden_models(folder: Path) -> tuple[Path, Path]:
    """Files of the two models that made the golden cases, with weights by rule."""
    config = json.loads((GOLDEN / "diffuser" / "unet_tiny_image.json").read_text())["config"]
    networks = Diffuser(diffuser_from_reference(config))
    for name, network in networks.networks.items():
        fill_(network, f"codi.unet_{name}.", to_reference)
    states = {f"diffuser.{name}": network.state_dict() for name, network in networks.networks.items()}
    save_parts(folder / "networks.safetensors", CoDiConfig(name="networks", diffuser=networks.config), states)
    config = CoDiConfig.from_reference(json.loads((GOLDEN / "small_config.json").read_text()))
    with torch.device("meta"):
        state = CoDi(config).to_reference_state_dict()
    for key, value in state.items():
        buffer = is_buffer(key, value)
        state[key] = torch.zeros(value.shape) if buffer else torch.from_numpy(det_array(key, tuple(value.shape)))
    small = CoDi.from_state_dict(state, config)
    tiny.save(folder / "small.safetensors", small)
    return folder / "networks.safetensors", folder / "small.safetensors"


def golden_errors(networks: CoDi, small: CoDi) -> dict[str, float]:
    """Largest error of a stream, by case."""
    kind = next(networks.parameters()).dtype
    errors = {}
    for name in (*CASES, *JOINT):
        meta = json.loads((GOLDEN / "diffuser" / f"unet_tiny_{name}.json").read_text())
        case = load_file(GOLDEN / "diffuser" / f"unet_tiny_{name}.safetensors")
        mix = {condition: meta["mix_weight"][condition] for condition in meta["condition_types"]}
        context = sum(w * case[f"in/cond_{condition}"] for condition, w in mix.items()) / sum(mix.values())
        latents = {stream: case[f"in/x_{stream}"].to(kind) for stream in meta["xtype"]}
        with torch.inference_mode():
            out = networks.diffuser(latents, case["in/timesteps"], context.to(kind), alignment="released")
        errors[f"forward, {name}"] = max(relative(out[stream], case[f"out/{stream}"]) for stream in out)
    for name in RUNS:
        case = load_file(GOLDEN / "end_to_end" / f"{name}.safetensors")
        (condition,) = (value.to(kind) for key, value in case.items() if key.startswith("cond/"))
        without, given = condition.chunk(2)
        noise = {key.removeprefix("xT/"): value.to(kind) for key, value in case.items() if key.startswith("xT/")}
        settings = SamplingSettings(steps=4, guidance=7.5, sampler="ddim_released")
        alignment = AlignmentSettings(mode="released", strength=1.0)
        out = samplers.sample(small.diffuser, noise, Prompt(given, without), settings, alignment)
        errors[f"run, {name}"] = max(relative(out[stream], case[f"z/{stream}"]) for stream in out)
    return errors


def golden() -> None:
    """Print the errors on the golden cases."""
    table: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        files = golden_models(Path(temporary))
        for dtype in DTYPES:
            models = [
                CoDi.load(list(convert(file, Path(temporary) / dtype, dtype)), dtype=COMPUTE.get(dtype, torch.float32))
                for file in files
            ]
            for case, error in golden_errors(*models).items():
                table.setdefault(case, []).append(error)
    print("| case | " + " | ".join(DTYPES) + " |")
    print("|---|" + "---|" * len(DTYPES))
    for case, errors in table.items():
        print(f"| {case} | " + " | ".join(f"{error:.1e}" for error in errors) + " |")


def model_config(model: str) -> CoDiConfig:
    """The configuration of a model of the table."""
    return {"tiny": lambda: tiny.FOUR, "published": lambda: published.CONFIG}[model]()


def write_weights(model: str, part: str, path: Path) -> None:
    """Write one part in single precision, of `mini` or with random weights."""
    if model == "mini":
        checkpoint = read_parts("mini", [part])
        return save_parts(path, cut(checkpoint.config, [part]), {part: checkpoint.take(part)}, dtype=torch.float32)
    config = model_config(model)
    torch.manual_seed(0)
    network = build(part, config)
    for layer in network.modules():
        if isinstance(layer, LAYERS):
            torch.nn.init.normal_(layer.weight, std=layer.weight[0].numel() ** -0.5)
    return save_parts(path, cut(config, [part]), {part: network.state_dict()})


def measure(model: str, part: str, dtype: str, folder: Path) -> None:
    """Run one part in this process, from a file; write its output and print the peak of memory in GiB."""
    whole = read_parts("mini").config if model == "mini" else model_config(model)
    kind = COMPUTE.get(dtype, torch.float32)
    (file,) = (folder / dtype).glob("*.safetensors")
    codi = CoDi.load(file, dtype=kind)
    torch.manual_seed(1)
    group, name = part.split(".")
    forget_peak("cpu")
    if group == "diffuser":
        stream = "video" if name == "image" else name
        shape = latent_shape(whole, stream, frames=4) if stream == "video" else latent_shape(whole, stream)
        width = whole.diffuser.networks[name].context_dim
        context = torch.nn.functional.normalize(torch.randn(1, 1, width), dim=-1)
        with torch.inference_mode():
            out = codi.diffuser({stream: torch.randn(1, *shape).to(kind)}, torch.tensor([500]), context.to(kind))
        result = out[stream]
    else:
        content = {"text": "three red stars", "image": torch.rand(1, 3, 256, 256), "audio": torch.rand(1, 1, 160000)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # mini encodes less than the 10 s of the published encoder
            result = codi.prompt(name, content[name], 16000).embedding
    torch.save(result.float(), folder / f"{dtype}.pt")
    print(peak("cpu") / 2**30)


def networks(model: str, parts: list[str], dtypes: list[str]) -> None:
    """Print a row per part and precision."""
    print("| part | dtype | GB on disk | error | peak GiB |")
    print("|---|---|---|---|---|")
    for part in parts:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)

            def alone(task: str, dtype: str = "fp32", part: str = part, folder: Path = folder) -> str:
                command = [sys.executable, __file__, task, "--model", model, "--parts", part, "--dtypes", dtype]
                command += ["--folder", str(folder)]
                return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout

            (folder / "fp32").mkdir()
            alone("write")
            for dtype in ["fp32", *(dtype for dtype in dtypes if dtype != "fp32")]:
                (source,) = (folder / "fp32").glob("*.safetensors")
                if dtype != "fp32":
                    list(convert(source, folder / dtype, dtype))
                (file,) = (folder / dtype).glob("*.safetensors")
                memory = float(alone("measure", dtype))
                size = file.stat().st_size / 1e9
                error = relative(torch.load(folder / f"{dtype}.pt"), torch.load(folder / "fp32.pt"))
                print(f"| {part} | {dtype} | {size:.3f} | {error:.1e} | {memory:.2f} |", flush=True)
                if dtype != "fp32":
                    file.unlink()


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["sizes", "golden", "networks", "write", "measure"])
    parser.add_argument("--model", choices=["tiny", "mini", "published"], default="mini")
    parser.add_argument("--parts", nargs="+", metavar="PART", help="default: all diffusers and prompt encoders")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task == "sizes":
        return sizes()
    if options.task == "golden":
        return golden()
    config = read_parts("mini").config if options.model == "mini" else model_config(options.model)
    parts = options.parts or [part for part in part_names(config) if not part.startswith("autoencoders.")]
    if options.task == "write":
        return write_weights(options.model, parts[0], options.folder / "fp32" / "part.safetensors")
    if options.task == "measure":
        return measure(options.model, parts[0], options.dtypes[0], options.folder)
    return networks(options.model, parts, options.dtypes)


if __name__ == "__main__":
    main()
