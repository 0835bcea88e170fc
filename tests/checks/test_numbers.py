"""The checks of numbers that every entry point shares."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from codi_backend.checks.numbers import require_finite, require_number, require_shares, require_whole

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.float8_e5m2)
NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_values_that_are_not_finite(dtype, bad):
    values = torch.zeros(3, 50)
    values[1, 37] = bad
    with pytest.raises(ValueError, match=r"^cat.wav holds values that are not finite \(NaN or infinity\): mend it\.$"):
        require_finite(values.to(dtype), "cat.wav", "mend it")


def test_an_8_bit_float_without_infinity():
    with pytest.raises(ValueError, match="not finite"):
        require_finite(torch.tensor([1.0, NAN]).to(torch.float8_e4m3fn), "x", "mend it")


@pytest.mark.parametrize("dtype", [*FLOATS, torch.float8_e4m3fn, torch.uint8, torch.int16, torch.int64])
def test_the_extent_is_returned(dtype):
    values = torch.tensor([[2.0, 3.0], [8.0, 1.0]]).to(dtype)
    assert require_finite(values, "x", "mend it", limit=8) == (1.0, 8.0)
    with pytest.raises(ValueError, match="^x holds values up to 8, where at most 7.5 makes sense: mend it.$"):
        require_finite(values, "x", "mend it", limit=7.5)


def test_the_limit_is_for_both_signs():
    with pytest.raises(ValueError, match=r"up to 1e\+30, where at most 100"):
        require_finite(torch.tensor([-1e30, 2.0]), "x", "mend it", limit=100)


@pytest.mark.parametrize(
    "values",
    [torch.zeros(0, 3), torch.empty(2, device="meta"), torch.zeros(2).bool(), np.zeros(0), np.zeros(3, np.float32)],
)
def test_what_has_no_values_or_zeros_only(values):
    assert require_finite(values, "x", "mend it", limit=1) == (0.0, 0.0)


def test_other_kinds_of_numbers():
    assert require_finite(torch.tensor([1 + 3j, -2j]), "x", "mend it") == (-2.0, 3.0)
    assert require_finite(torch.tensor([1, 65535]).to(torch.uint16), "x", "mend it") == (1.0, 65535.0)
    assert require_finite(torch.ones(3, requires_grad=True).expand(2, 3), "x", "mend it") == (1.0, 1.0)
    with pytest.raises(ValueError, match="not finite"):
        require_finite(torch.tensor([1 + 1j * INF]), "x", "mend it")


@pytest.mark.parametrize(
    "value", [0.5, np.float32(0.5), np.array(0.5), torch.tensor(0.5), torch.tensor([0.5]).half(), Fraction(1, 2)]
)
def test_numbers(value):
    number = require_number(value, "strength", 0, 1)
    assert type(number) is float and number == 0.5


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (NAN, "nan"),
        (INF, "inf"),
        (-0.1, "-0.1"),
        (1.5, "1.5"),
        (1e30, "1e\\+30"),
        (-(10**400), "about -2\\*\\*1329"),
        (torch.tensor(NAN), "tensor\\(nan\\)"),
        (np.float64(2), "2"),
        ("0.5", "'0.5'"),
        (None, "nothing"),
        (torch.zeros(2), "tensor.*"),
        (1j, "1j"),
        ([0.5], "\\[0.5\\]"),
    ],
)
def test_what_is_no_number_in_the_bounds(value, shown):
    with pytest.raises(ValueError, match=f"^strength: {shown} is out of range; choose a number from 0 to 1\\.$"):
        require_number(value, "strength", 0, 1)


@pytest.mark.parametrize("value", [30, 30.0, np.int64(30), torch.tensor(30), Fraction(30)])
def test_whole_numbers(value):
    number = require_whole(value, "steps", 1, 1000)
    assert type(number) is int and number == 30


@pytest.mark.parametrize("value", [0, 1001, 2.5, NAN, INF, "30", None, torch.arange(2)])
def test_what_is_no_whole_number_in_the_bounds(value):
    with pytest.raises(ValueError, match="^steps: .* is out of range; choose a whole number from 1 to 1000.$"):
        require_whole(value, "steps", 1, 1000)


def test_shares():
    assert require_shares([1, 0, torch.tensor(3)], "weights") == [1.0, 0.0, 3.0]
    for bad in ([-1, 2], [1, NAN], [1e308, 1e308], [0, 0], []):
        with pytest.raises(ValueError, match="^weights: "):
            require_shares(bad, "weights")
