"""Trains a coupler on pairs of latents."""

from __future__ import annotations

from typing import Any

import comfy.model_management as mm
import comfy.utils
import numpy as np
import torch
from comfy_api.latest import io
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ...codi_backend.checks.numbers import require_number, require_whole
from ...codi_backend.config.coupler import AXES
from ...codi_backend.training.coupler import HELD_OUT, retrieval
from ...codi_backend.training.fit_coupler import DEFAULTS, MIN_PAIRS, fit_coupler
from ..runtime.coupler_model import CouplerModel
from ..runtime.latent_packing import require_latent, samples_of, split
from ..runtime.types import CATEGORY, CouplerType

MAX_STEPS, MAX_BATCH, MAX_RATE, MAX_SEED = 1_000_000, 4096, 1.0, 2**64 - 1
AUTO = "auto"
# Bytes that training takes on the device: the coupler is small, whatever the models.
DEVICE_BYTES = 2e9
# Of the image of the losses, in pixels.
WIDTH, HEIGHT, MARGIN = 640, 360, 40


class CoDiTrainCoupler(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        def side(number: str, example: str) -> list[io.Input]:
            return [
                io.Latent.Input(
                    f"{number}_latents",
                    tooltip=f"Latents of the {number} stream, as a list or as batches, such as from VAE Encode. The "
                    "latent at each place belongs to the one at the same place of the other stream.",
                ),
                io.String.Input(
                    f"{number}_name", default=example, tooltip=f"Name of the latent space of the {number} stream."
                ),
            ]

        def axes(number: str) -> io.Input:
            return io.Combo.Input(
                f"{number}_axes",
                options=[AUTO, *(axes for axes in AXES if axes)],
                default=AUTO,
                tooltip="Axes of the latents after the channels: T time, F frequency, H and W places. auto takes HW "
                "for two; choose TF or FT for sounds with frequencies, so that their timing counts.",
            )

        return io.Schema(
            node_id="CoDiTrainCoupler",
            display_name="CoDi Train Coupler",
            category=f"{CATEGORY}/coupling",
            description="Trains a coupler for two latent spaces on pairs of latents that belong together. No diffusion "
            "model is needed; a few thousand pairs take minutes.",
            search_aliases=["coupler", "train", "contrastive", "infonce", "critic", "codi"],
            is_input_list=True,
            inputs=[
                *side("first", "image"),
                *side("second", "audio"),
                io.Int.Input("steps", default=DEFAULTS.steps, min=1, max=MAX_STEPS, tooltip="Training steps."),
                io.Int.Input(
                    "batch_size",
                    default=DEFAULTS.batch_size,
                    min=2,
                    max=MAX_BATCH,
                    tooltip="Pairs of a step, which are told apart from each other; more is better and slower.",
                ),
                io.Float.Input(
                    "learning_rate",
                    default=DEFAULTS.learning_rate,
                    min=1e-6,
                    max=MAX_RATE,
                    step=1e-6,
                    tooltip="Learning rate of AdamW.",
                ),
                io.Int.Input("seed", default=0, min=0, max=MAX_SEED, tooltip="Seed of the weights and the noise."),
                axes("first"),
                axes("second"),
            ],
            outputs=[
                CouplerType.Output(
                    display_name="coupler", tooltip="For CoDi Couple Guiders and CoDi Save Coupler."
                ),
                io.Image.Output(display_name="losses", tooltip="The loss of every step, and its moving average."),
                io.String.Output(
                    display_name="retrieval",
                    tooltip="How often the right partner is found among pairs that were kept from training, by noise "
                    "level.",
                ),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls,
        first_latents,
        first_name,
        second_latents,
        second_name,
        steps,
        batch_size,
        learning_rate,
        seed,
        first_axes=(AUTO,),
        second_axes=(AUTO,),
    ) -> io.NodeOutput:
        steps = require_whole(steps[0], "steps", 1, MAX_STEPS)
        batch_size = require_whole(batch_size[0], "batch_size", 2, MAX_BATCH)
        learning_rate = require_number(learning_rate[0], "learning_rate", 1e-6, MAX_RATE)
        seed = require_whole(seed[0], "seed", 0, MAX_SEED)
        names = _names(first_name[0], second_name[0])
        latents = {name: _stacked(given, f"{number}_latents") for name, given, number in zip(
            names, (first_latents, second_latents), ("first", "second")
        )}  # fmt: skip
        first, second = latents.values()
        if len(first) != len(second):
            raise ValueError(
                f"second_latents: there are {len(second)} for {len(first)} of the first stream; connect pairs."
            )
        if len(first) < MIN_PAIRS:
            raise ValueError(f"first_latents: {len(first)} pairs are too few; give {MIN_PAIRS} or more.")
        _require_axes(first_axes[0], first, "first_axes")
        _require_axes(second_axes[0], second, "second_axes")
        axes = {name: axes[0] for name, axes in zip(names, (first_axes, second_axes)) if axes[0] != AUTO}
        training, held_out = _divided(latents, seed)
        progress = comfy.utils.ProgressBar(steps)

        def report(done: int, total: int, loss: float) -> None:
            mm.throw_exception_if_processing_interrupted()
            progress.update_absolute(done, total)

        device = mm.get_torch_device()
        if device.type != "cpu":
            mm.free_memory(DEVICE_BYTES, device)
        try:
            coupler, history = fit_coupler(
                training,
                steps=steps,
                batch_size=batch_size,
                learning_rate=learning_rate,
                seed=seed % 2**32,
                axes=axes,
                device=device,
                progress=report,
            )
        except FloatingPointError as error:
            raise ValueError(f"learning_rate: {error}") from error
        record = {"steps": steps, "batch_size": batch_size, "learning_rate": learning_rate, "seed": seed}
        rows = retrieval(coupler, held_out) if held_out else []
        record |= {"pairs": len(first), "retrieval": rows}
        losses = [row["loss"] for row in history]
        return io.NodeOutput(CouplerModel(coupler, record), _curve(losses), _table(rows, held_out))


def _names(*given: Any) -> tuple[str, str]:
    names = tuple(str(name).strip() for name in given)
    for name, number in zip(names, ("first", "second")):
        if not name:
            raise ValueError(f"{number}_name: it is empty; give the latent space a name.")
    if names[0] == names[1]:
        raise ValueError(f"second_name: both streams are called {names[0]!r}; give them different names.")
    return names


def _stacked(latents: list, source: str) -> Tensor:
    """The latents of a stream, ``[N, C, ...]``. `ValueError` about the input `source`."""
    streams = []
    for latent in latents:
        samples = samples_of(latent, source)
        if len(split(samples)) > 1:
            raise ValueError(f"{source}: a joint latent has several streams; connect one of CoDi Split Latent's.")
        require_latent(samples, source, f"number {len(streams) + 1}")
        streams.append(samples.float().cpu())
    if len({stream.shape[1:] for stream in streams}) > 1:
        shapes = ", ".join(sorted({str(list(stream.shape[1:])) for stream in streams}))
        raise ValueError(f"{source}: the latents differ in shape ({shapes}); make them of one size.")
    return torch.cat(streams)


def _require_axes(chosen: str, latents: Tensor, source: str) -> None:
    """`ValueError` about the input `source` if latents ``[N, C, ...]`` do not have these axes."""
    extent = latents.shape[2:]
    if chosen == AUTO and len(extent) > 3:
        raise ValueError(f"{source}: latents of shape {list(latents.shape)} have too many axes; connect others.")
    if chosen != AUTO and (chosen not in AXES or len(chosen) != len(extent)):
        raise ValueError(f"{source}: latents of shape {list(latents.shape)} do not have axes {chosen}; choose {AUTO}.")


def _divided(latents: dict[str, Tensor], seed: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Pairs for training, and pairs that are kept from it; none are kept of few."""
    count = len(next(iter(latents.values())))
    kept = min(HELD_OUT, count // 5, count - MIN_PAIRS)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed % 2**32))
    training = {name: values[order[kept:]] for name, values in latents.items()}
    return training, {name: values[order[:kept]] for name, values in latents.items()} if kept > 1 else {}


def _table(rows: list[dict[str, float]], held_out: dict[str, Tensor]) -> str:
    if not rows:
        return "Too few pairs to keep some for measuring retrieval."
    count = len(next(iter(held_out.values())))
    lines = [f"noise level {row['sigma']:g}: {row['accuracy']:.1%}" for row in rows]
    return "\n".join([f"right partner found among {count} held-out pairs", *lines, f"chance: {1 / count:.1%}"])


def _curve(losses: list[float]) -> Tensor:
    """An image ``[1, H, W, 3]`` of the losses of all steps, and of their moving average."""
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default()
    average, smooth = [], losses[0]
    for step, loss in enumerate(losses):
        smooth += (loss - smooth) / min(step + 1, max(1, len(losses) // 20))
        average.append(smooth)
    low, high = min(losses), max(losses)
    columns = np.linspace(MARGIN, WIDTH - MARGIN, max(2, len(losses)))
    span = (high - low) or 1.0

    def points(values: list[float]) -> list[tuple[float, float]]:
        values = values if len(values) > 1 else values * 2
        return [(x, HEIGHT - MARGIN - (v - low) / span * (HEIGHT - 2 * MARGIN)) for x, v in zip(columns, values)]

    draw.line([(MARGIN, MARGIN), (MARGIN, HEIGHT - MARGIN), (WIDTH - MARGIN, HEIGHT - MARGIN)], "black")
    draw.line(points(losses), (170, 200, 240))
    draw.line(points(average), (20, 70, 160), width=2)
    draw.text((4, MARGIN - 6), f"{high:.2f}", "black", font)
    draw.text((4, HEIGHT - MARGIN - 6), f"{low:.2f}", "black", font)
    draw.text((MARGIN, HEIGHT - MARGIN + 8), "1", "black", font)
    draw.text((WIDTH - MARGIN, HEIGHT - MARGIN + 8), f"{len(losses)} steps", "black", font, anchor="ra")
    return torch.from_numpy(np.array(image, dtype=np.float32) / 255)[None]
