"""`codi inspect`: the content of checkpoint files, the completeness of their parts, and checks of the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from torch import Tensor

from ..config import CoDiConfig
from .files import Source, resolve
from .findings import FileFindings, Inspection, MissingPart, PartFindings
from .native import State, fit, held_twice, open_file, read_config, same_values, second_has_precedence, training_records
from .parts import build, on_meta, part_names
from .pickles import damaged_record
from .quantisation import added_keys, shadows
from .systems import holds_published, system_of
from .tensor_file import TensorFile, streamed
from .weight_values import count_not_finite

OURS, PUBLISHED = "this pack's", "published"


@dataclass
class _Share:
    """The tensors of a part in one file: their keys in the file, and `quantisation.shadows` by our names."""

    file: FileFindings
    keys: list[str]
    shadows: State


@dataclass
class _Model:
    """The parts of a model over all files.

    Attributes
    ----------
    whole : CoDiConfig
        Configuration with all parts that the model can have.
    system : module or None
        The system of published files; None for files of this pack.
    """

    whole: CoDiConfig
    system: ModuleType | None
    parts: dict[str, list[_Share]] = field(default_factory=dict)

    def config(self) -> CoDiConfig:
        """The configuration of the parts that the files hold."""
        if self.system is None:
            return self.whole
        return self.system.configure({part: _shapes(shares) for part, shares in self.parts.items()})


def inspect(source: Source, values: bool = True) -> Inspection:
    """Inspect checkpoint files. Problems of files and parts are among the findings.

    A part may be spread over several files; it is checked as a whole.

    Parameters
    ----------
    source : str, path or iterable of paths
        As for `CoDi.load`, but files of several models and kinds may be mixed.
    values : bool
        Read the weights, a few at a time, and check for damage and for values that are not finite. Otherwise only
        names, shapes and types are checked.

    Raises
    ------
    FileNotFoundError, ValueError
        Only if the source contains no file at all.
    """
    files: list[FileFindings] = []
    models: dict[tuple[str, str], _Model] = {}
    for path in resolve(source):
        findings = FileFindings(str(path))
        files.append(findings)
        try:
            file = open_file(path)
            findings.megabytes = path.stat().st_size / 1e6
            _inspect_file(file, findings, models)
            if values and (record := damaged_record(path)):
                findings.problem = f"{path.name} is damaged: the check sum of {record} is wrong; fetch it again."
        except (OSError, ValueError) as error:
            findings.problem = str(error)
    for model in models.values():
        _check_parts(model, values)
    missing = [
        MissingPart(model.whole.name, part, model.system.FILES[part] if model.system else None)
        for model in models.values()
        for part in part_names(model.whole)
        if part not in model.parts
    ]
    return Inspection(files, missing)


def _inspect_file(file: TensorFile, findings: FileFindings, models: dict[tuple[str, str], _Model]) -> None:
    """Fill in the findings about a file, and add its parts to its model."""
    if "codi_config" in file.metadata:
        config, system = read_config(file), None
        known = part_names(config)
        findings.kind, findings.edition = OURS, "codi-any-to-any"
        findings.training = training_records(file)
    elif holds_published(file.keys()):
        system = system_of([(file.path.name, file.keys())])
        config, known = system.CONFIG, ()
        findings.kind = PUBLISHED
    else:
        raise ValueError(
            f"{file.path.name} holds no CoDi configuration and no keys of the published files: "
            "it is not a checkpoint of CoDi."
        )
    findings.model = config.name
    held: dict[str, list[str]] = {}
    for key in file.keys():
        if system:
            part = system.part_of(key)
        else:
            part = next((part for part in known if key.startswith(f"{part}.")), None)
        if part is not None:
            held.setdefault(part, []).append(key)
            continue
        findings.unknown += 1
        if system is None:
            findings.problem = (
                f"{file.path.name} holds {key}, which belongs to no part of its model: "
                "it is damaged, or of another kind."
            )
    shares = {part: _Share(findings, keys, shadows(_ours(file, part, keys, system))) for part, keys in held.items()}
    if system:
        findings.edition = system.edition(system.configure({part: _shapes([share]) for part, share in shares.items()}))
    model = models.setdefault((findings.kind, system.SYSTEM if system else config.to_json()), _Model(config, system))
    for part, share in shares.items():
        model.parts.setdefault(part, []).append(share)


def _ours(file: TensorFile, part: str, keys: list[str], system: ModuleType | None) -> State:
    """The tensors of a part in a file, by our names."""
    if system is None:
        return {key.removeprefix(f"{part}."): file[key] for key in keys}
    return system.from_published(part, {key: file[key] for key in keys}, system.CONFIG)


def _shapes(shares: list[_Share]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for share in shares for key, value in share.shadows.items()}


def _check_parts(model: _Model, values: bool) -> None:
    """Add the findings about a model's parts to those about its files."""
    config = model.config()
    for part, shares in model.parts.items():
        names = list(dict.fromkeys(Path(share.file.path).name for share in shares))
        problems: list[list[str]] = [[] for _ in shares]
        together = {key: value for share in reversed(shares) for key, value in share.shadows.items()}
        try:
            with on_meta(f"{part} in {' and '.join(names)}"):
                needed = build(part, config).state_dict()
            fit(part, together, config, names, needed, strict=model.system is None)
        except ValueError as error:
            problems[0].append(str(error))
            needed = together
        for number, share in enumerate(shares):
            for earlier in shares[:number]:
                if twice := _held_twice(model.system, part, earlier, share, values):
                    problems[number].append(twice)
            share.file.parts.append(_part(part, share, needed, problems[number], values, model.system))


def _held_twice(system: ModuleType | None, part: str, one: _Share, other: _Share, values: bool) -> str | None:
    """Problem of two files that hold the same tensors of a part, with the message of `read_parts`."""
    both = [key for key in one.keys if key in set(other.keys)]
    names = Path(one.file.path).name, Path(other.file.path).name
    if not both:
        return None
    if system is None:
        return held_twice(part, *names)
    files = [open_file(Path(share.file.path)) for share in (one, other)]
    for key in both if values else ():
        if not same_values(files[0][key], files[1][key]):
            try:
                second_has_precedence(part, key, *names, system.FILES[part])
            except ValueError as error:
                return str(error)
    return None


def _part(
    part: str, share: _Share, needed: Mapping[str, Tensor], problems: list[str], values: bool, system: ModuleType | None
) -> PartFindings:
    """Findings about a part in one file."""
    found = {key: value for key, value in share.shadows.items() if key in needed}
    path = Path(share.file.path)
    not_finite = {}
    if values:
        state = _ours(open_file(path), part, share.keys, system)
        fitting = {key: value for key, value in state.items() if key in needed and value.shape == needed[key].shape}
        not_finite = {key: count for key, value in streamed(fitting) if (count := count_not_finite(value))}
    if not_finite:
        named = ", ".join(f"{count} in {key}" for key, count in list(not_finite.items())[:3])
        more = f", and more in {len(not_finite) - 3} other tensors" if len(not_finite) > 3 else ""
        problems.append(
            f"{path.name} holds {sum(not_finite.values())} values of {part} that are not finite (NaN or infinity), "
            f"{named}{more}: fetch or train it again."
        )
    by_dtype: dict[str, int] = {}
    for value in found.values():
        dtype = str(value.dtype).removeprefix("torch.")
        by_dtype[dtype] = by_dtype.get(dtype, 0) + value.numel()
    return PartFindings(
        name=part,
        found=len(found),
        ignored=len(share.shadows) - len(found) - len(added_keys(share.shadows)),
        parameters=sum(value.numel() for value in found.values()),
        dtypes=tuple(sorted(by_dtype)),
        by_dtype=by_dtype,
        megabytes=sum(value.nbytes for value in found.values()) / 1e6,
        not_finite=not_finite,
        problem=" ".join(problems) or None,
    )
