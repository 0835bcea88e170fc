"""`codi generate`: run the model and leave files and a page that a person can open."""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..checkpoints.native import read_parts
from ..conditioning.context import MixedContext, mix
from ..conditioning.prompt import Prompt, interpolate
from ..config import CoDiConfig
from ..media.earlier_results import PAGE, RECORD, earlier_results, read_from
from ..media.html_report import render_page, thumbnail
from ..media.output_folder import check_names, replacing
from ..media.write import spectrogram_image, write_result
from ..modalities import lengths, modality
from ..models.encoders.audio import CutPrompt
from ..pipeline import CoDi
from ..sampling.best_of_n import default_candidates
from .devices import place
from .films import write_films
from .request import Request, check_request

_BAR_DELAY = 0.2  # seconds, so that a refused request shows no bar


def generate_to_folder(options: argparse.Namespace) -> None:
    """Generate, and write the outputs, ``result.json`` and ``index.html`` into ``options.out``.

    The results of an earlier run in that folder are replaced as a whole when all is done; those that this run reads
    stay, and ``result.json`` lists them as ``kept``.

    ``options.prompts`` are (modality, text or path, weight), ``options.held`` (modality, path).
    """
    config, parts = look(options.model)
    request = check_request(options, config)
    earlier = earlier_results(options.out)
    needed = request.parts(config)
    result = generate(request, config, lambda: load(options, needed, parts))
    if options.json:
        print(json.dumps(result, indent=2))
        return
    print(f"Wrote {', '.join(str(options.out / f) for row in result['files'] for f in row.values())}.")
    if gone := sorted(name for name in earlier.difference(result["kept"]) if not (options.out / name).exists()):
        print(f"Removed {', '.join(gone)}, of an earlier run.")
    print(f"Open {options.out / PAGE} for all results.")


def generate(
    request: Request,
    config: CoDiConfig,
    model: Callable[[], CoDi],
    bar: bool = True,
    notes: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Generate what was asked for, and write it into its folder.

    Parameters
    ----------
    request : Request
    config : CoDiConfig
        Of the whole model.
    model : callable
        Gives the model, with all parts that are needed, once all files are read.
    bar : bool
        Whether to show a bar of the steps.
    notes : mapping, optional
        Further entries of ``result.json``.

    Returns
    -------
    dict
        What ``result.json`` holds.

    Raises
    ------
    ValueError, OSError
        With a sentence about what is wrong; the folder is as it was.
    """
    from tqdm import tqdm

    options, outputs = request.options, request.outputs
    seconds: dict[str, float] = {}
    begun = time.monotonic()

    def lap(stage: str) -> None:
        nonlocal begun
        seconds[stage] = round(time.monotonic() - begun, 3)
        begun = time.monotonic()

    earlier = earlier_results(options.out)
    check_names(options.out, (*request.written(), RECORD, PAGE), earlier, request.inputs)
    size = request.size(config)
    read, held_read = request.read(config)
    for note in (note for content in (*read, *held_read.values()) for note in content.notes):
        _print_note(note)
    contents = [content.value for content in read]
    held_contents = {name: content.value for name, content in held_read.items()}
    lap("read files")
    codi = model()
    if "text" in outputs and "text" in codi.autoencoders:
        _ = codi.autoencoders["text"].vocabulary  # should be missed now, not when all is done
    lap("load")
    weighted = [(name, content, weight) for (name, _, weight), content in zip(request.prompts, contents)]
    queue = iter(weighted)
    groups = [(start, list(itertools.islice(queue, len(group)))) for start, group in request.groups]
    prompt = _prompt(codi, groups, options)
    held = {name: _encode_held(codi, name, content, size) for name, content in held_contents.items()}
    start = _encode_start(codi, weighted, size) if options.fidelity > 0 else {}
    lap("encode prompt")
    sampling = codi.config.sampling(options.steps, options.sampler, options.guidance)
    auxiliary = codi.auxiliary_streams(outputs, held, options.alignment, options.fidelity)
    scale = codi.config.modality_guidance if options.alignment_scale is None else options.alignment_scale
    with tqdm(
        total=sampling["steps"], desc="denoising", unit="step", file=sys.stderr, delay=_BAR_DELAY, disable=not bar
    ) as steps:

        def progress(done: int, total: int) -> None:
            steps.total = total  # a step of a long clip has several windows
            steps.update(done - steps.n)

        latents = codi.generate_latents(
            prompt,
            outputs,
            seed=options.seed,
            alignment=options.alignment,
            strength=options.strength,
            alignment_scale=scale,
            progress=progress,
            held=held,
            start=start,
            fidelity=options.fidelity,
            candidates=options.candidates,
            window=options.window,
            overlap=options.overlap,
            **sampling,
            **size,
        )
    lap("denoise")
    decoded = {
        name: codi.decode(name, z, seed=options.seed) if name == "text" else codi.decode(name, z).cpu()
        for name, z in latents.items()
    }
    lap("decode")
    kept = read_from(options.out, earlier, request.inputs)
    files = [dict(row) for row in request.files]
    result = {
        **(notes or {}),
        "model": codi.config.name,
        "prompts": [
            {"modality": name, "content": text, "weight": weight, **({"start": start} if options.starts else {})}
            for start, group in request.groups
            for name, text, weight in group
        ],
        "interpolation": options.interpolation,
        "held": [{"modality": name, "file": path} for name, path in options.held],
        "outputs": outputs,
        "seed": options.seed,
        **sampling,
        "window": options.window,
        "overlap": options.overlap,
        "alignment": options.alignment,
        "strength": options.strength,
        "alignment_scale": scale,
        "auxiliary_streams": auxiliary,
        "candidates": options.candidates
        or default_candidates(codi.config, {*outputs, *auxiliary, *held}, options.alignment),
        "focus": options.focus,
        "fidelity": options.fidelity,
        "seconds": seconds,
        "peak_memory_mb": _peak_memory(),
        "files": files,
        "kept": kept,
    }
    thumbnails = [thumbnail(name, content) for (name, *_), content in zip(request.prompts, contents)]
    held_thumbnails = [thumbnail(name, content) for name, content in held_contents.items()]
    spectrograms = [spectrogram_image(codi.autoencoders["audio"].mel, audio) for audio in decoded.get("audio", ())]
    with replacing(options.out, earlier - {*kept}, RECORD) as folder:
        for i in range(options.count):
            write_result(folder, codi.config, decoded, i, options.count)
        if request.film is not None:
            rate = codi.autoencoders["audio"].config.mel.sample_rate
            settings = options.keep_sound, options.audio_track
            if made := write_films(folder, request.film, files, decoded["audio"], rate, *settings, _print_note):
                result["film"] = made
        lap("write files")
        (folder / RECORD).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        page = render_page(result, decoded.get("text", ()), spectrograms, thumbnails, held_thumbnails)
        # A file's name may hold bytes that are no characters.
        (folder / PAGE).write_text(page, encoding="utf-8", errors="replace")
    return result


def look(source: list[str]) -> tuple[CoDiConfig, set[str]]:
    """Configuration and parts of a model, of which nothing stays in memory."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the model will be loaded, and warn, in a moment
        checkpoint = read_parts(source)
    return checkpoint.config, set(checkpoint.parts)


def load(options: argparse.Namespace, needed: set[str], parts: set[str]) -> CoDi:
    """The model with the parts `needed`, of those that it has, on its device."""
    # Where a part is missing, the message of the whole model names what it lacks and what it has.
    only = needed if needed <= parts else None
    return place(CoDi.load(options.model, only=only, vocabulary=options.vocabulary), options.device)


def _print_note(sentence: str) -> None:
    print(f"codi: {sentence}", file=sys.stderr)


def _prompt(
    codi: CoDi, groups: list[tuple[float, list[tuple[str, Any, float]]]], options: argparse.Namespace
) -> Prompt | MixedContext | list[tuple[Prompt, float]]:
    """What guides the results: a mixture, or one for each start."""
    mixtures = [_mixture(codi, group, options.interpolation, options.focus, options.count) for _, group in groups]
    if len(groups) == 1 and groups[0][0] == 0:
        return mixtures[0]
    if codi.config.diffuser.contexts:
        raise ValueError("This model generates nothing that has time: leave --at out.")
    return [(mixture, start) for mixture, (start, _) in zip(mixtures, groups)]


def _mixture(
    codi: CoDi, prompts: list[tuple[str, Any, float]], interpolation: str, focus: float, count: int
) -> Prompt | MixedContext:
    """What guides `count` results: prompts of one token, interpolated, or contexts of many, mixed in the attention."""
    if codi.config.diffuser.contexts:
        if interpolation != "linear":
            raise ValueError("This model mixes prompts in its attention: leave --interpolation out.")
        options = {"image": {"focus": focus}}
        contexts = [(codi.context(name, content, **options.get(name, {})), weight) for name, content, weight in prompts]
        return mix(contexts).expand(count)
    if focus != 0.5:
        raise ValueError("This model's prompts have no focus: leave --focus out.")
    mixed = interpolate(
        [(_encode_prompt(codi, name, content), weight) for name, content, weight in prompts], interpolation
    )
    return Prompt(*(e.expand(count, -1, -1) for e in (mixed.embedding, mixed.unconditional)))


def _encode_prompt(codi: CoDi, name: str, content: Any) -> Prompt:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CutPrompt)  # `read_prompt` has warned, with the name of the file
        return codi.prompt(name, *content) if name == "audio" else codi.prompt(name, content)


def _encode_held(codi: CoDi, name: str, content: Any, size: dict[str, Any]) -> Tensor:
    """Latents of what was read, brought to the size and length that are generated."""
    if name not in codi.outputs:
        raise ValueError(f"This model cannot hold {name}: choose from {', '.join(codi.outputs) or 'other files'}.")
    if name == "text":
        return codi.encode(name, [content])
    device = next(codi.parameters()).device
    if name == "audio":
        samples, rate = content
        _, seconds = lengths(codi.config, size["frames"], size["seconds"])
        return codi.encode(name, samples.to(device), rate, seconds=seconds)
    autoencoder = codi.autoencoders[modality(name).network]
    shape = codi.latent_shape(name, **size)
    return codi.encode(name, _square(content, shape[-1] * autoencoder.downscale).to(device))


def _encode_start(codi: CoDi, prompts: list[tuple[str, Any, float]], size: dict[str, Any]) -> dict[str, Tensor]:
    """Latents of the first image among the prompts, to begin with."""
    images = [content for name, content, _ in prompts if name == "image"]
    if not images:
        raise ValueError("There is no image to start from: give one by --image, or leave --fidelity out.")
    return {"image": _encode_held(codi, "image", images[0], size)}


def _square(pixels: Tensor, side: int) -> Tensor:
    """The central square of ``[1, 3, ..., H, W]``, `side` pixels wide."""
    short = min(pixels.shape[-2:])
    top, left = ((length - short) // 2 for length in pixels.shape[-2:])
    cut = pixels[..., top : top + short, left : left + short]
    flat = cut.reshape(1, -1, short, short)
    # Means keep pixels that a player's size had multiplied as they were.
    return F.interpolate(flat, (side, side), mode="area" if side <= short else "bilinear").unflatten(1, cut.shape[1:-2])


def _peak_memory() -> int | None:
    """Peak memory of this process in MB; with a GPU in use, of its allocator. None where it is unknown."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return round(torch.cuda.max_memory_allocated() / 1e6)
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e6 if sys.platform == "darwin" else 1e3))
