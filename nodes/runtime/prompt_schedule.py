"""Prompts that change over the time of a clip, in CONDITIONING: each context window gets the prompt of its time."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import comfy.conds
import comfy.utils
import torch
from torch import Tensor

from ...codi_backend.conditioning.schedule import PromptSchedule
from ...codi_backend.config import CoDiConfig
from ...codi_backend.modalities import modality
from ...codi_backend.sampling.windows import step_seconds
from .conditioning_inputs import SCHEDULE
from .latent_packing import names_of


class ScheduledTokens(comfy.conds.CONDCrossAttn):
    """A condition whose value is the mixture for the whole clip, and which knows those for its parts."""

    def __init__(self, schedule: PromptSchedule, config: CoDiConfig, shapes: Sequence[Sequence[int]]):
        lengths = {name: shape[2] for name, shape in zip(names_of(shapes, config), shapes) if modality(name).time_axis}
        self.schedule = schedule
        self.step = {steps: step_seconds(config, name) for name, steps in reversed(lengths.items())}
        super().__init__(self.within(range(max(lengths.values())), max(lengths.values())).cond)

    def within(self, indices: Sequence[int], total: int) -> comfy.conds.CONDCrossAttn:
        """The mixture for these steps of the stream that has so many steps in all."""
        step = self.step[total]
        # A window of a looped schedule may have several stretches.
        stretches = [
            [index for _, index in group]
            for _, group in itertools.groupby(enumerate(indices), lambda pair: pair[1] - pair[0])
        ]
        intervals = [(stretch[0] * step, (stretch[-1] + 1) * step) for stretch in stretches]
        return comfy.conds.CONDCrossAttn(self.schedule.over(intervals).embedding)

    def _copy_with(self, cond: Tensor) -> comfy.conds.CONDCrossAttn:
        return comfy.conds.CONDCrossAttn(cond)


def check_schedule(prompt_type: str, cond: dict, names: Sequence[str]) -> None:
    """`ValueError` about the guider's input `prompt_type` for a schedule that a run cannot follow."""
    schedule: PromptSchedule | None = cond.get(SCHEDULE)
    if schedule is None:
        return
    if not any(modality(name).time_axis for name in names):
        raise ValueError(
            f"{prompt_type}: prompts by time need a video or audio stream; switch one on in CoDi Empty Latent, or "
            "connect a single prompt."
        )
    first = schedule.prompts[0].embedding
    if cond["cross_attn"].shape[1:] != first.shape[1:] or not torch.equal(
        cond["cross_attn"], comfy.utils.repeat_to_batch_size(first, len(cond["cross_attn"])).to(cond["cross_attn"])
    ):
        raise ValueError(
            f"{prompt_type}: another node has changed the prompts of CoDi Prompt Schedule; connect that node before it."
        )
