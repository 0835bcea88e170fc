"""Files of the dataset: written once, whole, and the same bytes every time."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ..world import FRAME_RATE, SAMPLE_RATE, SAMPLES

PEAK = 0.6  # of the samples of all audio


def write_once(path: Path, make: Callable[[], bytes]) -> bool:
    """Write what `make` returns unless the file is there; returns whether it was written.

    The file appears under its name when it is complete, so what is there after an interruption is whole.
    """
    if path.exists():
        return False
    content = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return True


def png_bytes(image: Image.Image) -> bytes:
    """An image as PNG."""
    stream = io.BytesIO()
    image.save(stream, "png")
    return stream.getvalue()


def webp_bytes(frames: Sequence[Image.Image]) -> bytes:
    """Frames at the frame rate of the small model as an animated WebP without loss, also where all frames are equal."""
    stream = io.BytesIO()
    animation = {"save_all": True, "append_images": frames[1:], "duration": round(1000 / FRAME_RATE), "loop": 0}
    frames[0].save(stream, "webp", lossless=True, method=0, quality=50, **animation)
    return stream.getvalue()


def flac_bytes(samples: np.ndarray) -> bytes:
    """Mono samples ``[N]`` in -1..1 at 16 kHz as FLAC with 16 bits."""
    import av

    values = np.round(np.clip(samples, -1, 1) * 32767).astype(np.int16)
    stream = io.BytesIO()
    with av.open(stream, "w", format="flac") as container:
        track = container.add_stream("flac", SAMPLE_RATE, layout="mono")
        track.codec_context.format = "s16"
        frame = av.AudioFrame.from_ndarray(values[None], "s16", "mono")
        frame.sample_rate, frame.pts = SAMPLE_RATE, 0
        container.mux(track.encode(frame))
        container.mux(track.encode(None))
    return stream.getvalue()


def placed(samples: np.ndarray, start: float = 0.0) -> np.ndarray:
    """Samples at 16 kHz with their peak at `PEAK`, from `start` (seconds) on in silence of the model's length.

    What does not fit is faded out in the last 20 ms.
    """
    first = round(start * SAMPLE_RATE)
    kept = np.array(samples[: SAMPLES - first], np.float64)
    if len(kept) < len(samples):
        fade = SAMPLE_RATE // 50
        kept[-fade:] *= np.linspace(1, 0, fade)
    result = np.zeros(SAMPLES)
    result[first : first + len(kept)] = kept * PEAK / max(np.abs(kept).max(initial=0), 1e-9)
    return result
