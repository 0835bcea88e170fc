"""`codi download`: the published files from the Hugging Face hub, with resumed downloads."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ..media.output_folder import check_folder
from . import codi as published
from . import versatile as published_versatile

EDITIONS = ("current", "fp16", "first")


@dataclass(frozen=True)
class Repository:
    """The repository of a published system on the hub.

    Attributes
    ----------
    editions : dict of str to sequence of str
        Names of the files of each edition.
    folders : dict of str to str
        Edition of the files in each folder, where editions share file names; files in other folders are the current
        edition.
    sizes : dict of str to dict of str to set of int
        Known sizes in bytes in 2023, by edition and name.
    """

    name: str
    editions: dict[str, Sequence[str]]
    folders: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, dict[str, set[int]]] = field(default_factory=dict)

    def holds(self, path: PurePosixPath, edition: str) -> bool:
        """Whether the folder of a file in the repository belongs to an edition."""
        if not self.folders:
            return True
        return edition == next((self.folders[part] for part in path.parts[:-1] if part in self.folders), "current")


_IMAGE, _TEXT, _AUDIO = (published.FILES[f"diffuser.{name}"] for name in ("image", "text", "audio"))
_FOUR_FLOW = PurePosixPath(published_versatile.FOUR_FLOW)
_VAES = (published_versatile.IMAGE_VAE, published_versatile.TEXT_VAE)
REPOSITORIES = {
    "codi": Repository(
        "ZinengTang/CoDi",
        dict.fromkeys(EDITIONS, tuple(dict.fromkeys(published.FILES.values()))),
        {"checkpoints_fp16": "fp16", "deprecated_checkpoints": "first"},
        {
            "current": {_TEXT: {12_396_125_125}, _AUDIO: {6_906_944_181}, _IMAGE: {11_190_012_683}},
            "fp16": {published.ENCODERS: {3_017_419_057}, _AUDIO: {907_848_517}},
            "first": {_TEXT: {6_835_640_625, 6_843_844_189}, _AUDIO: {1_256_858_021}, _IMAGE: {5_629_511_241}},
        },
    ),
    "versatile": Repository(
        "shi-labs/versatile-diffusion",
        {
            edition: (f"{_FOUR_FLOW.stem}{mark}{_FOUR_FLOW.suffix}", *_VAES)
            for edition, mark in zip(EDITIONS, ("", "-fp16", "-deprecated"))
        },
    ),
}
_TIMEOUT = 30  # seconds for the repository's list of files


def known_sizes(name: str) -> dict[str, set[int]]:
    """Sizes in bytes that a published file had in 2023, by edition; empty where none are known."""
    repositories = REPOSITORIES.values()
    return {edition: files[name] for row in repositories for edition, files in row.sizes.items() if name in files}


@dataclass(frozen=True)
class RemoteFile:
    """A file on the hub, at the current commit.

    Attributes
    ----------
    version : str
        Hash of the content.
    changed : bool
        Whether its size differs from the known size in 2023.
    """

    name: str
    url: str
    size: int
    version: str
    changed: bool

    def target(self, out: Path) -> Path:
        return out / self.name

    def partial(self, out: Path) -> Path:
        """Path of the partial download, which holds one version only."""
        return out / f"{self.name}.{self.version[:12]}.partial"

    def present(self, out: Path) -> int:
        """Bytes of the file that are in the folder."""
        path = self.target(out) if self.target(out).exists() else self.partial(out)
        return path.stat().st_size if path.exists() else 0


def download(
    out: Path,
    edition: str = "current",
    only: Iterable[str] | None = None,
    confirmed: Callable[[], bool] = lambda: True,
    report: Callable[[str], None] = print,
    endpoint: str | None = None,
    model: str = "codi",
) -> list[Path]:
    """Fetch an edition of the published files. A second call resumes an interrupted download.

    Parameters
    ----------
    out : Path
        Folder, made if need be. Complete files in it are not fetched again.
    edition : {"current", "fp16", "first"}
    only : iterable of str, optional
        Names of the files to fetch, all of the edition by default.
    confirmed : callable
        Called after `report` has shown the sizes, if there is something to fetch; False stops the download.
    endpoint : str, optional
        Address of the hub; by default that of huggingface_hub, which the variable HF_ENDPOINT sets.
    model : {"codi", "versatile"}
        CoDi or Versatile Diffusion.

    Raises
    ------
    ValueError, OSError
        If huggingface_hub is not installed, the hub is out of reach or lacks a file, the disk is too full, there was no
        confirmation, or a file has the wrong size.
    """
    check_folder(out)
    files = find(edition, only, endpoint, model)
    for file in files:
        report(_line(file, out))
        if file.target(out).exists() and file.present(out) != file.size:
            raise ValueError(
                f"{file.target(out)} has {file.present(out)} bytes instead of {file.size}: "
                "move it away, or choose another folder with --out."
            )
    left = sum(max(file.size - file.present(out), 0) for file in files)
    if left:
        free = shutil.disk_usage(next(folder for folder in (out, *out.absolute().parents) if folder.exists())).free
        report(f"To fetch: {left / 1e9:.2f} GB; free in {out}: {free / 1e9:.2f} GB.")
        if left > free:
            raise OSError(f"{left / 1e9:.2f} GB do not fit in {out}, where {free / 1e9:.2f} GB are free.")
        if not confirmed():
            raise ValueError("Nothing was fetched.")
        out.mkdir(parents=True, exist_ok=True)
    for file in files:
        if not file.target(out).exists():
            _fetch(file, out)
    return [file.target(out) for file in files]


def find(
    edition: str, only: Iterable[str] | None = None, endpoint: str | None = None, model: str = "codi"
) -> list[RemoteFile]:
    """Look up files of an edition on the hub; `ValueError` or `OSError` as for `download`."""
    if edition not in EDITIONS:
        raise ValueError(f"There is no edition {edition!r}; choose from {', '.join(EDITIONS)}.")
    if model not in REPOSITORIES:
        raise ValueError(f"There is no model {model!r}; choose from {', '.join(REPOSITORIES)}.")
    repository = REPOSITORIES[model]
    hub = _hub(repository.name)
    api = hub.HfApi(endpoint=endpoint)
    with _network(f"The files of {repository.name} could not be listed at {api.endpoint}"):
        # No token: the files are public, and an expired one would be refused.
        info = api.model_info(repository.name, files_metadata=True, timeout=_TIMEOUT, token=False)
    available: dict[str, Any] = {}
    for sibling in sorted(info.siblings, key=lambda sibling: sibling.rfilename.count("/")):
        path = PurePosixPath(sibling.rfilename)
        if path.suffix in (".pth", ".safetensors") and repository.holds(path, edition):
            available.setdefault(path.name, sibling)
    names = list(dict.fromkeys(repository.editions[edition] if only is None else only))
    if missing := [name for name in names if name not in available]:
        raise ValueError(
            f"The {edition} edition in {repository.name} has no {', '.join(missing)}; "
            f"it has {', '.join(available) or 'no files'}: choose files with --only."
        )
    found = []
    for name in names:
        sibling, known = available[name], repository.sizes.get(edition, {}).get(name)
        url = hub.hf_hub_url(repository.name, sibling.rfilename, revision=info.sha, endpoint=api.endpoint)
        changed = known is not None and sibling.size not in known
        found.append(RemoteFile(name, url, sibling.size, sibling.blob_id, changed))
    return found


def _fetch(file: RemoteFile, out: Path) -> None:
    # hf_hub_download discards a partial file when it is interrupted (since huggingface_hub 2).
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    partial = file.partial(out)
    if file.present(out) < file.size:
        with (
            _network(f"{file.name} was not fetched completely; run the command again to resume"),
            open(partial, "ab") as content,
        ):
            headers = build_hf_headers(token=False)
            http_get(file.url, content, resume_size=content.tell(), headers=headers, displayed_filename=file.name)
    if (size := partial.stat().st_size) != file.size:
        partial.unlink()
        raise ValueError(
            f"{file.name} arrived with {size} bytes instead of {file.size} and was removed: fetch it again."
        )
    os.replace(partial, file.target(out))


def _hub(repository: str) -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise ValueError(
            "huggingface_hub is not installed: pip install huggingface_hub, "
            f"or fetch the files with a browser from https://huggingface.co/{repository}."
        ) from error
    return huggingface_hub


@contextmanager
def _network(failure: str) -> Iterator[None]:
    from huggingface_hub.errors import HfHubHTTPError

    # The common base of the network errors of requests or httpx, by version.
    common = HfHubHTTPError.__bases__[0]
    try:
        yield
    except (OSError, ValueError, common) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise OSError(f"{failure} ({reason}).") from error


def _line(file: RemoteFile, out: Path) -> str:
    present = file.present(out)
    notes = [f"{present / 1e9:.2f} GB present"] if present else []
    if file.changed:
        notes.append("its size has changed since 2023")
    return f"{file.name}  {file.size / 1e9:.2f} GB" + "".join(f"; {note}" for note in notes)
