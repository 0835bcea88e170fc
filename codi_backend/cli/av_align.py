"""`codi similarity --av-align`: synchrony of the audio and video of clips."""

from __future__ import annotations

import argparse

from ..media.output_folder import check_folder, replacing
from .extras import require


def measure(options: argparse.Namespace) -> None:
    """Print AV-Align of the files, and write it into the folder that is asked for."""
    if options.prompts or options.outputs:
        raise ValueError("--av-align measures files as they are: leave out prompts and --outputs.")
    if options.out is not None:
        check_folder(options.out)
    require("torch", "numpy", "PIL", "av", "scipy", "cv2")
    import dataclasses
    import json

    from ..evaluation.av_align import Synchrony, measure_synchrony

    result: Synchrony = measure_synchrony(options.av_align)
    plain = json.dumps(dataclasses.asdict(result), indent=1)
    print(plain if options.json else _table(result.scores | {"mean": result.mean, "shuffled": result.shuffled}))
    if options.out is not None:
        with replacing(options.out) as folder:
            (folder / "av_align.json").write_text(plain + "\n", encoding="utf-8")


def _table(rows: dict[str, float | None]) -> str:
    width = max(map(len, rows))
    return "\n".join(f"{name:<{width}}  {'-' if value is None else f'{value:.3f}'}" for name, value in rows.items())
