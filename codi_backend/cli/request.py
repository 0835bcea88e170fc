"""What `codi generate` is asked for: checked before anything is read, then read."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from ..checkpoints.parts import needed_parts
from ..checks.numbers import require_whole
from ..config import CoDiConfig
from ..media.contents import Content, read_held, read_prompt, split_start
from ..media.write import result_files
from ..modalities import lengths, modality
from ..sampling.auxiliary import auxiliary_streams
from .arguments import Prompted, by_start
from .films import film_names, held_film

MOST_RESULTS = 10_000  # at once; more would fill any memory


@dataclass(frozen=True)
class Request:
    """The options of one run, checked as far as the model's configuration allows.

    Attributes
    ----------
    options : Namespace
        Of `codi generate`.
    prompts : list of (modality, text or path, weight)
    groups : list of (float, list)
        Prompts that start together, with the seconds at which they do, ascending.
    outputs : list of str
    inputs : list of str
        Paths of the files that are read.
    files : list of dict
        Per result, the names of its files by modality.
    film : str or None
        The held video that gets new audio.
    """

    options: argparse.Namespace
    prompts: list[Prompted]
    groups: list[tuple[float, list[Prompted]]]
    outputs: list[str]
    inputs: list[str]
    files: list[dict[str, str]]
    film: str | None

    @property
    def modalities(self) -> set[str]:
        """Those of prompts, held streams and outputs."""
        return {*self.outputs, *(name for name, *_ in (*self.prompts, *self.options.held))}

    def written(self) -> list[str]:
        """Names of all files of results that may be written."""
        return [name for row in self.files for name in (*row.values(), *(film_names(row) if self.film else ()))]

    def parts(self, config: CoDiConfig) -> set[str]:
        """The parts of the model that are needed."""
        held = [name for name, _ in self.options.held]
        streams = [*self.outputs, *held, *auxiliary_streams(config, self.outputs, held, self.options.alignment)]
        return needed_parts([name for name, *_ in self.prompts], streams, config)

    def size(self, config: CoDiConfig) -> dict[str, Any]:
        """Size and length of what is generated."""
        options = self.options
        size = {"image_size": options.image_size, "frames": options.frames, "seconds": options.seconds}
        if options.frames is not None:  # the model that is loaded may have no videos, whose frame rate sets the length
            _, size["seconds"] = lengths(config, options.frames, options.seconds)
        return size

    def read(self, config: CoDiConfig) -> tuple[list[Content], dict[str, Content]]:
        """The contents of prompts, and of held streams by modality."""
        size, track = self.size(config), self.options.audio_track
        prompts = [read_prompt(name, text, config, track) for name, text, _ in self.prompts]
        length = (size["frames"], size["seconds"], track)
        return prompts, {name: read_held(name, path, config, *length) for name, path in self.options.held}


def check_request(options: argparse.Namespace, config: CoDiConfig) -> Request:
    """Check the options of a run; `ValueError` for what contradicts itself."""
    require_whole(options.count, "--count", 1, MOST_RESULTS)
    groups = by_start(options.prompts or [("text", "", 1.0)], options.starts)
    prompts = [prompt for _, group in groups for prompt in group]
    outputs = options.outputs or [name for name in ("image", "audio") if name in config.diffuser.networks]
    for name in (*outputs, *(name for name, _ in options.held)):
        modality(name)
    if len({name for name, _ in options.held}) < len(options.held):
        raise ValueError("A modality is held twice: name each once.")
    film = held_film(options.held, outputs)
    if options.keep_sound and film is None:
        raise ValueError(
            "--keep-sound is for a film that gets new audio: use it with --hold video=FILE and audio output."
        )
    files = [result_files(outputs, i, options.count) for i in range(options.count)]
    return Request(options, prompts, groups, outputs, _inputs(prompts, options.held), files, film)


def _inputs(prompts: Collection[tuple[str, str, float]], held: Collection[tuple[str, str]]) -> list[str]:
    inputs = [split_start(name, path)[0] for name, path, *_ in (*prompts, *held) if name != "text"]
    return inputs + [path for name, path in held if name == "text"]
