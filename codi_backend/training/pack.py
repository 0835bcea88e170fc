"""`codi pack`: a finished run as checkpoint files of half precision."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import torch

from ..checkpoints.native import State, read_parts, save_parts
from ..media.output_folder import replacing
from ..pipeline import CoDi
from .run_folder import part_file, read_config

_FILE_SIZE = 15_000_000  # bytes


def pack(out: Path, destination: Path) -> list[Path]:
    """Write the finished run as half-precision checkpoint files with the configuration.

    A part is one file, or several if it is large, of which the first has its training record. Files of an earlier pack
    in `destination` are replaced when all are written. `FileNotFoundError` if a part has not been trained.
    """
    config = read_config(out)
    parts = list(CoDi(config).parts())
    sources = {part: part_file(out, part) for part in parts}
    of_part = re.compile(rf"{re.escape(config.name)}_({'|'.join(map(re.escape, parts))})(-\d+-of-\d+)?\.safetensors")
    # Shards of an earlier pack with another number of shards would make a part be read twice.
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
