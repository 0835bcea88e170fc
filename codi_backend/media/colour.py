"""Colours of videos and images that are not sRGB, by the code points of ITU-T H.273 (the same as FFmpeg's)."""

from __future__ import annotations

import torch
from torch import Tensor

PQ, HLG = 16, 18
BT2020, P3_CINEMA, P3 = 9, 11, 12
_LINEAR = 8

_REFERENCE_WHITE = 203.0  # cd/m2 of a white sheet in HDR (ITU-R BT.2408); it becomes the white of SDR
_HLG_PEAK = 1000.0  # cd/m2 of the display for which HLG has a system gamma of 1.2
_KNEE = 0.7  # of SDR's white; what is brighter is compressed, so that highlights keep some detail

_P3_TO_BT709 = ((1.224940, -0.224940, 0.0), (-0.042057, 1.042057, 0.0), (-0.019638, -0.078636, 1.098274))
_TO_BT709 = {
    BT2020: ((1.660491, -0.587641, -0.072850), (-0.124550, 1.132900, -0.008349), (-0.018151, -0.100579, 1.118730)),
    P3_CINEMA: _P3_TO_BT709,
    P3: _P3_TO_BT709,
}


def differs(transfer: int, primaries: int) -> bool:
    """Whether colours need `to_srgb`. Those of SDR video pass as sRGB, as in players."""
    return transfer in (PQ, HLG, _LINEAR) or primaries in _TO_BT709


def is_deep(transfer: int) -> bool:
    """Whether 8 bits a channel are too few before `to_srgb`."""
    return transfer in (PQ, HLG, _LINEAR)


def to_srgb(colours: Tensor, transfer: int, primaries: int) -> Tensor:
    """``[..., 3]`` in 0..1 as coded -> sRGB in 0..1.

    HDR becomes SDR: reference white becomes nearly white, and what is brighter is compressed.
    """
    if transfer == PQ:
        light = _pq_light(colours) / _REFERENCE_WHITE
    elif transfer == HLG:
        light = _hlg_light(colours) / _REFERENCE_WHITE
    elif transfer == _LINEAR:
        light = colours
    else:
        light = torch.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    if primaries in _TO_BT709:
        light = light @ light.new_tensor(_TO_BT709[primaries]).T
    light = light.clamp(min=0)
    if transfer in (PQ, HLG):
        most = light.amax(-1, keepdim=True)
        light = light * (_compressed(most) / most.clamp(min=1e-6))
    light = light.clamp(0, 1)
    return torch.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def _compressed(light: Tensor) -> Tensor:
    room = 1 - _KNEE
    return torch.where(light <= _KNEE, light, 1 - room * torch.exp((_KNEE - light) / room))


def _pq_light(signal: Tensor) -> Tensor:
    """The EOTF of SMPTE ST 2084, in cd/m2."""
    root = signal ** (1 / 78.84375)
    return 10000 * ((root - 0.8359375).clamp(min=0) / (18.8515625 - 18.6875 * root)) ** (1 / 0.1593017578125)


def _hlg_light(signal: Tensor) -> Tensor:
    """The EOTF of ITU-R BT.2100's HLG, in cd/m2."""
    scene = torch.where(signal <= 0.5, signal**2 / 3, (torch.exp((signal - 0.55991073) / 0.17883277) + 0.28466892) / 12)
    luminance = (scene * scene.new_tensor([0.2627, 0.6780, 0.0593])).sum(-1, keepdim=True)
    return _HLG_PEAK * luminance.clamp(min=1e-9) ** 0.2 * scene
