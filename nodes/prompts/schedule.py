"""Prompts that change over the time of a clip."""

from __future__ import annotations

from comfy_api.latest import io

from ...codi_backend.checks.numbers import require_number
from ...codi_backend.conditioning.prompt import Prompt
from ...codi_backend.conditioning.schedule import schedule
from ...codi_backend.modalities import MAX_SECONDS
from ..runtime.conditioning_inputs import SCHEDULE, one_prompt
from ..runtime.context_tokens import KEY as CONTEXTS
from ..runtime.growing_inputs import connected, growing
from ..runtime.types import CATEGORY
from .interpolate import MAX_PROMPTS, check_alike


class CoDiPromptSchedule(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiPromptSchedule",
            display_name="CoDi Prompt Schedule",
            category=f"{CATEGORY}/prompts",
            description="Prompts that change over the time of a video or audio, for use with context windows.",
            search_aliases=["prompt travel", "prompt scheduling", "long video", "context windows", "time", "codi"],
            inputs=[
                growing(
                    "prompts",
                    io.Conditioning.Input("prompt", tooltip="A prompt, which applies until the next one starts."),
                    MAX_PROMPTS,
                    "Prompts in order of time, of CoDi Prompt nodes; a new socket appears when the last is connected.",
                    least=2,
                ),
                io.String.Input(
                    "starts",
                    default="0, 5",
                    tooltip="The second at which each prompt starts, separated by commas; the first is 0.",
                ),
            ],
            outputs=[io.Conditioning.Output(display_name="conditioning", tooltip="The prompts with their times.")],
        )

    @classmethod
    def execute(cls, prompts, starts) -> io.NodeOutput:
        given = connected("prompts", "prompt", MAX_PROMPTS, prompts, "schedule")
        pairs = {
            name: one_prompt(conditioning, name, "connect them one by one") for name, conditioning in given.items()
        }
        for name, (_, options) in pairs.items():
            if CONTEXTS in options:
                raise ValueError(f"{name}: this is a context of a Versatile Diffusion, which makes nothing that has "
                                 "time; connect a CoDi Prompt node.")  # fmt: skip
        check_alike({name: tokens for name, (tokens, _) in pairs.items()})
        seconds = [_second(part) for part in str(starts).split(",")]
        if len(seconds) != len(pairs):
            raise ValueError(f"starts: there are {len(seconds)} for {len(pairs)} prompts; give each prompt one.")
        if seconds != sorted(seconds):
            raise ValueError("starts: they are not in order of time; connect the prompts in the order of their starts.")
        try:
            by_time = schedule([(Prompt(tokens, tokens), start) for (tokens, _), start in zip(pairs.values(), seconds)])
        except ValueError as error:
            raise ValueError(str(error).replace("prompts:", "starts:", 1)) from error
        _, options = next(iter(pairs.values()))
        return io.NodeOutput([[by_time.between(0, 0).embedding, options | {SCHEDULE: by_time}]])


def _second(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"starts: {text.strip()!r} is no number of seconds; write them as in 0, 5, 7.5.") from None
    return require_number(number, "starts", 0, MAX_SECONDS)
