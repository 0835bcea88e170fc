"""A guider over several guiders: their models denoise the streams of one latent together.

Each inner guider is entered through its own `sample`, the next one inside it, with a sampler that only takes over the
guider's denoiser. So each model keeps its hooks, patches, wrappers, latent scaling and clean-up. Inside the last one
runs the sampler of the user, over the packed latent of all streams.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import comfy.samplers
from comfy.nested_tensor import NestedTensor
from torch import Tensor

from .coupled_checks import check_guider, check_sigmas, check_streams, masks_of
from .coupled_denoiser import JointDenoiser
from .coupled_memory import LoadedTogether
from .coupled_previews import JointModelView
from .coupled_stream import Stream
from .coupler_model import CouplerModel, Coupling
from .noise_levels import NoiseConvention


class CoupledGuider:
    """A GUIDER for a nested latent with one stream for each inner guider.

    Parameters
    ----------
    guiders : sequence of GUIDER
        In the order of the streams.
    coupler : CouplerModel or None
        None has the models run side by side.
    weight : float
        Of the coupler's corrections; 0 is as without a coupler.
    start_percent, end_percent : float
        Shares of the lead's schedule between which the coupler acts.
    lead : int
        Index of the guider whose sigmas the sampler gets.
    """

    def __init__(
        self,
        guiders: Sequence[Any],
        coupler: CouplerModel | None = None,
        weight: float = 0.0,
        start_percent: float = 0.0,
        end_percent: float = 1.0,
        lead: int = 0,
    ):
        for number, guider in enumerate(guiders, start=1):
            check_guider(guider, number)
        self.guiders, self.lead = list(guiders), lead
        self.coupler, self.weight = coupler, weight
        self.start_percent, self.end_percent = start_percent, end_percent
        # What sampler nodes read from a guider.
        self.model_patcher = JointModelView([guider.model_patcher for guider in guiders], lead)

    def sample(
        self,
        noise: NestedTensor,
        latent_image: NestedTensor,
        sampler: comfy.samplers.Sampler,
        sigmas: Tensor,
        denoise_mask: NestedTensor | Tensor | None = None,
        callback: Callable | None = None,
        disable_pbar: bool = False,
        seed: int | None = None,
    ) -> NestedTensor:
        """See `comfy.samplers.CFGGuider.sample`. `ValueError` with a sentence about the sampler node's input."""
        if sigmas.shape[-1] == 0:
            return latent_image
        pairs = check_streams(latent_image, noise, self.guiders)
        lead = self.guiders[self.lead].model_patcher
        convention = NoiseConvention.of(lead.get_model_object("model_sampling"))
        check_sigmas(sigmas, convention, self.lead + 1)
        masks = masks_of(denoise_mask, len(pairs))
        streams = [
            Stream(guider, one, latent, mask, convention)
            for guider, (latent, one), mask in zip(_for_one_run(self.guiders), pairs, masks)
        ]
        run = _Run(self, streams, sampler, sigmas, disable_pbar, seed)
        try:
            return run(callback)
        finally:
            self.model_patcher.model.latent_format.forget()

    def coupling(self, streams: Sequence[Stream]) -> Coupling | None:
        """The coupler at work on these streams; None if it has nothing to do."""
        if self.coupler is None or self.weight == 0:
            return None
        schedule = streams[self.lead].sampling
        percents = (self.start_percent, self.end_percent)
        start, end = (float(schedule.percent_to_sigma(percent)) for percent in percents)
        return Coupling(self.coupler, streams, self.weight, start, end)


def _for_one_run(guiders: Sequence[Any]) -> list[Any]:
    """Copies of the guiders, which keep what sampling leaves on a guider, and have a patcher each."""
    copies, seen = [], set()
    for guider in map(copy.copy, guiders):
        if id(guider.model_patcher) in seen:
            guider.model_patcher = guider.model_patcher.clone()
        seen.add(id(guider.model_patcher))
        copies.append(guider)
    return copies


class _Run:
    """One run of a `CoupledGuider`."""

    def __init__(self, owner: CoupledGuider, streams: list[Stream], sampler, sigmas: Tensor, disable_pbar: bool, seed):
        self.owner, self.streams, self.sampler, self.sigmas = owner, streams, sampler, sigmas
        self.disable_pbar, self.seed = disable_pbar, seed
        # Held streams are not sampled at all: their models need no memory and no time, and they stay bit for bit.
        self.active = [stream for stream in streams if not stream.is_held]
        if not self.active:
            raise ValueError("latent_image: every stream is held; set a noise mask with ones for a stream to generate.")
        self.coupling = owner.coupling(streams)

    def __call__(self, callback: Callable | None) -> NestedTensor:
        self.callback = callback
        reserved = self.coupling.model.patcher.model_size() if self.coupling else 0
        self.memory = LoadedTogether(self.active, reserved)
        self.memory.load()
        self._enter(0)
        device = self.active[0].output.device
        return NestedTensor([s.latent.to(device) if s.is_held else s.output for s in self.streams])

    def _enter(self, index: int) -> None:
        """Enter the guiders from `index` on, the last of which runs the sampler."""
        if index == len(self.active):
            self._sample()
            return
        stream = self.active[index]
        images = self.owner.model_patcher.model.latent_format
        callback = self.callback and images.callback(self.streams.index(stream), stream.patcher)
        stream.output = stream.guider.sample(
            stream.noise,
            stream.latent,
            _Capture(stream, lambda: self._enter(index + 1)),
            stream.sigmas(self.sigmas),
            denoise_mask=stream.mask,
            callback=callback,
            disable_pbar=self.disable_pbar,
            seed=self.seed,
        )

    def _sample(self) -> None:
        lead = self.streams[self.owner.lead]
        correct = self.coupling and self.coupling.correct
        cfg = getattr(lead.guider, "cfg", 1.0)
        joint = JointDenoiser(self.active, lead.patcher, cfg, self.memory.activate, correct)
        noise, latent = (
            joint.pack([getattr(stream, name) for stream in self.active]) for name in ("scaled_noise", "scaled_latent")
        )
        for stream in self.active:
            stream.draw_mask_noise(self.sampler, self.seed)
        sigmas = self.sigmas.to(joint.device, copy=True)  # some samplers change them in place
        extra = {"model_options": joint.options(sigmas), "seed": self.seed}
        report = self.callback and self._reporter(joint)
        try:
            packed = self.sampler.sample(joint, sigmas, extra, report, noise, latent, None, self.disable_pbar)
        finally:
            joint.close()
        for stream, part in zip(self.active, joint.unpack(packed)):
            stream.sampled = stream.from_state(part)

    def _reporter(self, joint: JointDenoiser) -> Callable:
        """The sampler's callback, which hands all streams to each guider's callback and then to the user's."""
        # So that sampler nodes, which undo the scaling of all streams alike, get what was given.
        held = {id(s): s.patcher.model.process_latent_in(s.latent) for s in self.streams if s.is_held}

        def report(step: int, x0: Tensor, x: Tensor, total_steps: int) -> None:
            clean, noisy = dict(held), dict(held)
            for stream, *parts in zip(self.active, joint.unpack(x0), joint.unpack(x)):
                clean[id(stream)], noisy[id(stream)] = map(stream.from_state, parts)
                stream.callback(step, clean[id(stream)], noisy[id(stream)], total_steps)
            nested = (NestedTensor([found[id(stream)] for stream in self.streams]) for found in (clean, noisy))
            self.callback(step, *nested, total_steps)

        return report


class _Capture(comfy.samplers.Sampler):
    """A sampler that takes over the denoiser of a guider, and gives the stream's part of the joint result."""

    def __init__(self, stream: Stream, inside: Callable[[], None]):
        self.stream, self.inside = stream, inside

    def sample(
        self,
        model_wrap,
        sigmas: Tensor,
        extra_args: dict[str, Any],
        callback: Callable | None,
        noise: Tensor,
        latent_image: Tensor | None = None,
        denoise_mask: Tensor | None = None,
        disable_pbar: bool = False,
    ) -> Tensor:
        self.stream.capture(model_wrap, sigmas, extra_args, callback, noise, latent_image, denoise_mask)
        self.inside()
        return self.stream.sampled
