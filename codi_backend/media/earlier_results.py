"""Which files in an output folder are results of an earlier `codi generate`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

RECORD, PAGE = "result.json", "index.html"
_RESULT = re.compile(r"(text|image|video|audio|film)(_\d+)?\.(txt|png|mp4|mkv|wav)")


def earlier_results(out: Path) -> set[str]:
    """Names of the files that the record in a folder lists, with the record and the page; none without a record."""
    try:
        record = json.loads((out / RECORD).read_text(encoding="utf-8"))
        listed = {name for files in record["files"] for name in files.values()} | {*record.get("kept", ())}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return set()
    # A record may have been written by anyone; only what has the name of a result is removed for it.
    return {name for name in listed if isinstance(name, str) and _RESULT.fullmatch(name)} | {RECORD, PAGE}


def read_from(out: Path, earlier: Iterable[str], read: Iterable[str]) -> list[str]:
    """Those earlier results that are among the paths `read`: they stay, whatever replaces the others."""
    inputs = {Path(path).resolve() for path in read}
    return sorted(name for name in earlier if (out / name).resolve() in inputs)
