"""Inputs of any number that are paired by number, such as prompt_2 and weight_2."""

from __future__ import annotations

import copy
from typing import Any

from comfy_api.latest import io

from ...codi_backend.checks.numbers import require_shares


def numbered(name: str, most: int) -> list[str]:
    """The names of an Autogrow's sockets, numbered from one."""
    return [f"{name}_{number}" for number in range(1, most + 1)]


def growing(group: str, one: Any, most: int, tooltip: str, least: int = 0) -> io.Autogrow.Input:
    """An Autogrow of numbered sockets like `one`; optional if `least` is 0."""
    template = io.Autogrow.TemplateNames(one, names=numbered(one.id, most), min=least)
    return io.Autogrow.Input(group, template=template, optional=least == 0, tooltip=tooltip)


def growing_weights(one: str, most: int) -> io.Autogrow.Input:
    """The sockets of the weights of a mixture: one for each socket `one`; see `weights_of`."""
    return growing(
        "weights",
        io.Float.Input("weight", tooltip=f"The weight of the {one} with the same number."),
        most,
        f"Weights of the {one}s with the same numbers. Only their ratio matters; the default is 1.",
    )


def counted(group: str, most: int, tooltip: str, *each: Any) -> io.DynamicCombo.Input:
    """A widget for a number from 2 to `most`, which shows so many of `each` input, numbered from one.

    An Autogrow turns every widget into a socket; these stay widgets.
    """

    def numbered_inputs(number: int) -> list[Any]:
        return [_numbered_copy(one, i) for i in range(1, number + 1) for one in each]

    options = [io.DynamicCombo.Option(str(number), numbered_inputs(number)) for number in range(2, most + 1)]
    return io.DynamicCombo.Input(group, options=options, tooltip=tooltip)


def weight_widget(one: str) -> io.Float.Input:
    """The weight beside each `one` of a mixture."""
    return io.Float.Input(
        "weight",
        default=1.0,
        min=0.0,
        max=1000.0,
        step=0.05,
        round=False,
        tooltip=f"The weight of the {one} with the same number. Only the ratio of the weights matters; 0 leaves one "
        "out.",
    )


def divided(given: dict[str, Any], *names: str) -> list[dict[str, Any]]:
    """The values of a `counted` input, as one dict for each of its inputs `names`."""
    return [{key: one for key, one in given.items() if key.rpartition("_")[0] == name} for name in names]


def connected(group: str, one: str, most: int, given: dict[str, Any], purpose: str) -> dict[str, Any]:
    """The connected sockets `one` of a growing input, in the order of their numbers.

    `ValueError` about the input `group` if none is connected; `purpose` is a verb, such as "mix".
    """
    found = {name: given[name] for name in numbered(one, most) if given.get(name) is not None}
    if not found:
        raise ValueError(f"{group}: there is nothing to {purpose}; connect at least one {one}.")
    return found


def partners(owners: list[str], kind: str, given: dict[str, Any] | None) -> list:
    """The values of the sockets `kind` with the numbers of `owners`; None for a socket that is not connected.

    `ValueError` if a connected socket has no owner.
    """
    found = {_number(name): one for name, one in (given or {}).items() if one is not None}
    numbers = [_number(owner) for owner in owners]
    if unpaired := sorted(found.keys() - set(numbers)):
        owner = f"{owners[0].rpartition('_')[0]}_{unpaired[0]}"
        raise ValueError(f"{kind}s: one is for {owner}, which is not connected; connect it, or disconnect its {kind}.")
    return [found.get(number) for number in numbers]


def weights_of(owners: list[str], given: dict[str, float | None] | None) -> list[float]:
    """The weight of each of `owners`, 1 where none is connected."""
    return require_shares([1.0 if one is None else one for one in partners(owners, "weight", given)], "weights")


def _numbered_copy(one: Any, number: int) -> Any:
    numbered_one = copy.copy(one)
    numbered_one.id = f"{one.id}_{number}"
    return numbered_one


def _number(name: str) -> int:
    return int(name.rpartition("_")[2])
