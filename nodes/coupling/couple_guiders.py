"""Couples guiders, each with a model of its own."""

from __future__ import annotations

from comfy_api.latest import io

from ...codi_backend.checks.numbers import require_number, require_whole
from ..latents.joint import MAX_STREAMS
from ..runtime.coupled_guider import CoupledGuider
from ..runtime.coupler_model import CouplerModel
from ..runtime.growing_inputs import growing, numbered
from ..runtime.types import CATEGORY, CouplerType

MAX_WEIGHT = 100.0
DEFAULT_WEIGHT = 5.0


class CoDiCoupleGuiders(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiCoupleGuiders",
            display_name="CoDi Couple Guiders",
            category=f"{CATEGORY}/coupling",
            description="Couples models of any kind, each with its own prompts: they denoise the streams of one latent "
            "together, for SamplerCustomAdvanced. A coupler makes the results agree.",
            search_aliases=["couple models", "joint generation", "combine guiders", "image and audio", "codi"],
            inputs=[
                growing(
                    "guiders",
                    io.Guider.Input("guider", tooltip="A guider with its model and prompts, such as CFGGuider."),
                    MAX_STREAMS,
                    "Guiders of the streams, in the order of the streams in the latent.",
                    least=2,
                ),
                io.Float.Input(
                    "weight",
                    default=DEFAULT_WEIGHT,
                    min=0.0,
                    max=MAX_WEIGHT,
                    step=0.1,
                    round=0.01,
                    tooltip="Strength of the coupling. 0 is no coupling.",
                ),
                io.Float.Input(
                    "start_percent",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Share of the schedule at which the coupling begins.",
                ),
                io.Float.Input(
                    "end_percent",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Share of the schedule at which the coupling ends.",
                ),
                io.Int.Input(
                    "lead",
                    default=1,
                    min=1,
                    max=MAX_STREAMS,
                    tooltip="Number of the guider that leads: the scheduler has its model. Other models get the same "
                    "ratio of noise to content at their own sigmas.",
                ),
                CouplerType.Input(
                    "coupler", optional=True, tooltip="The coupler. Without one, the models run side by side."
                ),
            ],
            outputs=[io.Guider.Output(display_name="guider", tooltip="For SamplerCustomAdvanced.")],
        )

    @classmethod
    def execute(
        cls,
        guiders: io.Autogrow.Type,
        weight: float,
        start_percent: float,
        end_percent: float,
        lead: int,
        coupler: CouplerModel | None = None,
    ) -> io.NodeOutput:
        given = [guiders[name] for name in numbered("guider", MAX_STREAMS) if guiders.get(name) is not None]
        if len(given) < 2:
            raise ValueError("guiders: there is nothing to couple; connect at least two guiders.")
        weight = require_number(weight, "weight", 0, MAX_WEIGHT)
        start_percent = require_number(start_percent, "start_percent", 0, 1)
        end_percent = require_number(end_percent, "end_percent", 0, 1)
        if start_percent > end_percent:
            raise ValueError("start_percent: it is above end_percent; choose a smaller one.")
        lead = require_whole(lead, "lead", 1, len(given))
        if coupler is not None and not isinstance(coupler, CouplerModel):
            raise ValueError("coupler: this is none; connect CoDi Load Coupler or CoDi Train Coupler.")
        guider = CoupledGuider(given, coupler, weight, start_percent, end_percent, lead - 1)
        return io.NodeOutput(guider)
