"""A short run of every part of a model and of every output that it can make."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..checkpoints.files import Source, resolve
from ..checkpoints.native import read_parts
from ..checkpoints.parts import TIME, needed_parts
from ..config import CoDiConfig
from ..modalities import MODALITIES, modality
from ..models.autoencoders.vocabulary import find_vocabulary
from ..peak_memory import forget_peak, peak
from ..pipeline import CoDi

STEPS = 2
IMAGE_SIZE, FRAMES = 256, 4  # at most
RATE = 16000  # of half a second of audio, which no encoder cuts
TEXT = "three red stars, slowly"


@dataclass(frozen=True)
class Step:
    """One step of the smoke run.

    Attributes
    ----------
    name : str
    result : str
        Shape and range of the result, or a text.
    seconds : float
        Without loading.
    peak : int or None
        Bytes held at most, with the weights that the step needs; see `peak_memory.peak`.
    problem : str or None
    """

    name: str
    result: str
    seconds: float
    peak: int | None
    problem: str | None


def smoke_run(source: Source, device: str) -> Iterator[Step]:
    """Encode a prompt of every kind, use every autoencoder and network, and make every output; only what files hold.

    Each step loads the parts that it needs, so that the peak is that of a user's run. Without vocabularies, texts are
    left out.
    """
    checkpoint = read_parts(source)
    config, parts = checkpoint.config, set(checkpoint.parts)
    del checkpoint
    if "autoencoders.text" in parts and config.text_autoencoder.words is None:
        if find_vocabulary(file.parent for file in resolve(source)) is None:
            parts.remove("autoencoders.text")
            yield Step("texts", "left out: vocab.txt and vocab.json are not beside the files", 0.0, None, None)
    kinds = [name for name in MODALITIES if f"prompt_encoders.{_encoder(name)}" in parts and _encodes(name, config)]
    for kind in kinds:
        yield _step(source, device, f"prompt: {kind}", {f"prompt_encoders.{_encoder(kind)}"}, _prompt_of(kind))
    for name in ("text", "image", "audio"):
        if f"autoencoders.{name}" in parts:
            yield _step(source, device, f"autoencoder: {name}", {f"autoencoders.{name}"}, _reconstruction_of(name))
    shared = {f"contexts.{kind}" for kind in config.diffuser.contexts} | {TIME} if config.diffuser.contexts else set()
    networks = [name for name in ("text", "image", "audio") if {f"diffuser.{name}", *shared} <= parts]
    for name in networks:
        yield _step(source, device, f"prediction: {name}", {f"diffuser.{name}", *shared}, _prediction_of(name))
    outputs = [name for name in MODALITIES if modality(name).network in networks and _makes(name, config, parts)]
    usable = [kind for kind in kinds if not config.diffuser.contexts or kind in config.diffuser.contexts]
    if not usable:
        return
    prompt = "text" if "text" in usable else usable[0]
    sets = [[name] for name in outputs]
    joint = [name for name in outputs if name != "image" or "video" not in outputs]  # both are of one network
    if not config.diffuser.contexts and len(joint) > 1:
        sets.append(joint)
    for some in sets:
        needed = needed_parts([prompt], some, config) | shared
        yield _step(source, device, f"{prompt} to {' and '.join(some)}", needed, _generation_of(prompt, some))


def _encoder(kind: str) -> str:
    return "image" if kind == "video" else kind


def _encodes(kind: str, config: CoDiConfig) -> bool:
    return kind != "video" or config.image_encoder.temporal


def _makes(name: str, config: CoDiConfig, parts: set[str]) -> bool:
    network = modality(name).network
    return f"autoencoders.{network}" in parts and (name != "video" or config.diffuser.networks[network].temporal)


def _step(source: Source, device: str, name: str, parts: set[str], run: Callable[[CoDi], Any]) -> Step:
    forget_peak(device)
    begun = time.perf_counter()
    try:
        codi = CoDi.load(source, only=parts).to(device)
        torch.manual_seed(0)
        begun = time.perf_counter()
        result = run(codi)
        seconds = time.perf_counter() - begun
        described, problem = _described(result), None if _finite(result) else "the result is not finite"
    except (ValueError, OSError, RuntimeError) as error:  # RuntimeError: out of memory, or an operation of a device
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        described, problem, seconds = "none", f"it fails ({reason.rstrip('.')})", time.perf_counter() - begun
    return Step(name, described, seconds, peak(device), problem)


def _content(kind: str) -> Any:
    shapes = {"image": (1, 3, 256, 256), "video": (1, 3, FRAMES, 256, 256)}
    if kind == "text":
        return TEXT
    return 0.1 * torch.randn(1, 1, RATE // 2) if kind == "audio" else torch.rand(shapes[kind])


def _prompt_of(kind: str) -> Callable[[CoDi], Tensor]:
    return lambda codi: codi.prompt(kind, _content(kind), _rate(kind)).embedding


def _rate(kind: str) -> int | None:
    return RATE if kind == "audio" else None


def _reconstruction_of(name: str) -> Callable[[CoDi], dict[str, Any]]:
    return lambda codi: {name: codi.decode(name, codi.encode(name, _content(name), _rate(name)))}


def _prediction_of(name: str) -> Callable[[CoDi], Tensor]:
    def run(codi: CoDi) -> Tensor:
        network = codi.config.diffuser.networks[name]
        weight = next(codi.diffuser.parameters())
        shape = {"text": (network.in_channels,), "audio": (network.in_channels, 64, 16)}.get(
            name, (network.in_channels, 32, 32)
        )
        latent = torch.randn(1, *shape).to(weight)
        tokens = torch.nn.functional.normalize(torch.randn(1, 1, network.context_dim), dim=-1).to(weight)
        kinds = codi.config.diffuser.contexts
        context = [(kinds[0], tokens, 1.0)] if kinds else tokens
        with torch.inference_mode():
            return codi.diffuser({name: latent}, torch.tensor([500], device=weight.device), context)[name]

    return run


def _generation_of(kind: str, outputs: list[str]) -> Callable[[CoDi], dict[str, Any]]:
    def run(codi: CoDi) -> dict[str, Any]:
        encode = codi.context if codi.config.diffuser.contexts else codi.prompt
        more = [RATE] if kind == "audio" else []
        options: dict[str, Any] = {"steps": STEPS, "candidates": 1}
        if "image" in outputs or "video" in outputs:
            options["image_size"] = min(IMAGE_SIZE, codi.config.image_autoencoder.image_size)
        if "video" in outputs:
            options["frames"] = min(FRAMES, codi.config.image_autoencoder.frames)
        return codi.generate(encode(kind, _content(kind), *more), outputs, **options)

    return run


def _tensors(result: Any) -> Iterator[Tensor]:
    if torch.is_tensor(result):
        yield result
    elif isinstance(result, dict):
        for value in result.values():
            yield from _tensors(value)


def _finite(result: Any) -> bool:
    return all(bool(value.isfinite().all()) for value in _tensors(result))


def _described(result: Any) -> str:
    described = [
        f"{'x'.join(map(str, value.shape))} in {float(value.min()):.3g}..{float(value.max()):.3g}"
        for value in _tensors(result)
    ]
    texts = result.get("text", []) if isinstance(result, dict) else []
    return "; ".join(described + [repr(text[:60]) for text in texts])
