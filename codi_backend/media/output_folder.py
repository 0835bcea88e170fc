"""The folder that a command writes to: checked before work begins, changed as a whole when all results are there."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

_REMEDY = "choose another folder with --out"


def check_folder(out: Path, needed: int = 0) -> None:
    """Check that files can be written into a folder, which need not exist yet; nothing is left in it.

    Parameters
    ----------
    needed : int
        Bytes that have to be free.

    Raises
    ------
    ValueError
        If it, or a folder above it, is a file, does not allow writing, or lacks space.
    """
    here = out
    try:
        here = next(folder for folder in (out, *out.absolute().parents) if _there(folder))
        if not here.is_dir():
            raise ValueError(f"{here} is a file, not a folder: {_REMEDY}.")
        with tempfile.TemporaryFile(dir=here):
            pass
        free = shutil.disk_usage(here).free
    except OSError as error:
        raise ValueError(f"Nothing can be written into {here} ({error.strerror}): {_REMEDY}.") from error
    if needed > free:
        sizes = f"{needed / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free in {here}"
        raise ValueError(f"The files take {sizes}: make room, or {_REMEDY}.")


def check_names(out: Path, names: Iterable[str], earlier: Collection[str], read: Iterable[str | os.PathLike]) -> None:
    """Check that no file is lost when `names` are written into a folder.

    Parameters
    ----------
    earlier : collection of str
        Names of files in the folder that an earlier run wrote, and that may be replaced.
    read : iterable of paths
        Files that the run reads.

    Raises
    ------
    ValueError
        If one of the names is a file that the run reads, or a file of someone else.
    """
    inputs = {Path(path).resolve() for path in read}
    for name in names:
        path = out / name
        if path.resolve() in inputs:
            raise ValueError(f"{path} is read by this run, whose result would replace it: {_REMEDY}.")
        if name not in earlier and _there(path):
            raise ValueError(f"{path} exists and is no result of an earlier run: move it away, or {_REMEDY}.")


@contextlib.contextmanager
def replacing(out: Path, earlier: Iterable[str] = (), record: str | None = None) -> Iterator[Path]:
    """An empty folder for all files of a run; without an error they are moved into `out` at the end, else removed.

    Files of the same names in `out`, and those that `earlier` names, are removed in the same moment; `out` holds the
    old files or the new ones, and is not made where there is an error. All other files in it stay as they are.

    `record` names the file that lists the others. It is the last that is removed and the first that is moved in, so
    that a process which is killed between leaves no file that is not listed.
    """
    made = [folder for folder in (out, *out.absolute().parents) if not folder.exists()]
    out.mkdir(parents=True, exist_ok=True)
    # Inside `out`, since what is beside it may be another disk.
    work = Path(tempfile.mkdtemp(prefix=".codi-", dir=out))
    fresh, aside = work / "new", work / "old"
    try:
        fresh.mkdir()
        aside.mkdir()
        yield fresh
        _exchange(out, fresh, aside, earlier, record)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        for folder in made:
            with contextlib.suppress(OSError):  # another run has written into it
                folder.rmdir()
        raise
    shutil.rmtree(work, ignore_errors=True)


def _exchange(out: Path, fresh: Path, aside: Path, earlier: Iterable[str], record: str | None) -> None:
    names = sorted((path.name for path in fresh.iterdir()), key=lambda name: (name != record, name))
    if folders := [name for name in names if (out / name).is_dir()]:
        raise ValueError(f"{out / folders[0]} is a folder where a file is to be written: move it away, or {_REMEDY}.")
    gone = sorted({*names, *earlier}, key=lambda name: (name == record, name))
    moves = [(out / name, aside / name) for name in gone if _there(out / name)]
    moves += [(fresh / name, out / name) for name in names]
    begun = []
    try:
        for source, target in moves:
            begun.append((source, target))
            os.replace(source, target)
    except BaseException:
        for source, target in reversed(begun):
            if not _there(source):
                os.replace(target, source)
        raise


def _there(path: Path) -> bool:
    """Whether there is anything of this name, be it a link to nothing; an `OSError` for a name that cannot be."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True
