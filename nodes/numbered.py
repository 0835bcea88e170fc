"""Growing inputs of several kinds that belong together by their numbers, such as prompt_2 and weight_2."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..codi_backend.checks import require_shares


def numbered(name: str, most: int) -> list[str]:
    """Names of the inputs of an Autogrow, which count from one."""
    return [f"{name}_{number}" for number in range(1, most + 1)]


def growing(group: str, one: Any, most: int, tooltip: str, least: int = 0) -> io.Autogrow.Input:
    """An Autogrow of inputs like `one`, numbered; optional where none is needed."""
    template = io.Autogrow.TemplateNames(one, names=numbered(one.id, most), min=least)
    return io.Autogrow.Input(group, template=template, optional=least == 0, tooltip=tooltip)


def partners(owners: list[str], kind: str, given: dict[str, Any] | None) -> list:
    """What is connected to the inputs called `kind` with the numbers of `owners`; None where nothing is."""
    found = {_number(name): one for name, one in (given or {}).items() if one is not None}
    numbers = [_number(owner) for owner in owners]
    if strange := sorted(found.keys() - set(numbers)):
        owner = f"{owners[0].rpartition('_')[0]}_{strange[0]}"
        raise ValueError(f"{kind}s: one is for {owner}, which is not there; connect it, or disconnect its {kind}.")
    return [found.get(number) for number in numbers]


def weights_of(owners: list[str], given: dict[str, float | None] | None) -> list[float]:
    """The weight of each of `owners`, 1 where none is connected."""
    return require_shares([1.0 if one is None else one for one in partners(owners, "weight", given)], "weights")


def _number(name: str) -> int:
    return int(name.rpartition("_")[2])
