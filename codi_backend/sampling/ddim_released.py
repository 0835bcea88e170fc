"""The sampler of the released code, step for step (SPEC section 1)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..checks.numbers import require_whole
from ..models.noise_schedule import STEPS, add_noise, alphas_cumprod


class ReleasedDDIM:
    """DDIM with eta 0 by the released rule, with the interface of a diffusers scheduler.

    It differs from textbook DDIM: `steps` requested steps become ``ceil(1000 / (1000 // steps))``, timesteps are
    shifted by one, and the last step ends at the noise level of timestep 0 instead of none.

    Parameters
    ----------
    steps : int
        1 to 500; `ValueError` otherwise, and for numbers that lead past the last timestep, such as 3.
    """

    init_noise_sigma = 1.0

    def __init__(self, steps: int):
        steps = require_whole(steps, "steps", 1, STEPS)
        ascending = torch.arange(0, STEPS, STEPS // steps) + 1
        if ascending[-1] >= STEPS:
            raise ValueError(
                f"{steps} steps are not possible with the released DDIM rule, which would need timestep {STEPS}: "
                "choose a divisor of 1000 up to 500, such as 50."
            )
        alphas = alphas_cumprod()
        previous = torch.cat([alphas[:1], alphas[ascending[:-1]]])
        self.timesteps = ascending.flip(0)
        self._levels = alphas
        self._alphas = {int(t): (float(alphas[t]), float(p)) for t, p in zip(ascending, previous)}

    def begin(self, clean: Tensor, noise: Tensor, fidelity: float) -> tuple[Tensor, int]:
        """What a run begins with that shall stay close to `clean`, and how many of the steps are left.

        As released (SPEC_VD section 5), the fraction of that number is cut off, and the noise level is that of the step
        before the first one that is taken. With no step left, it is `clean`.
        """
        left = int(len(self.timesteps) * (1 - fidelity))
        if left == 0:
            return clean, 0
        level = self.timesteps[-left - 1].expand(len(clean))
        return add_noise(clean, noise, level, self._levels.to(clean.device)).to(clean.dtype), left

    def scale_model_input(self, sample: Tensor, timestep: Tensor) -> Tensor:
        return sample

    def step(
        self, eps: Tensor, timestep: Tensor, sample: Tensor, generator: object = None, return_dict: bool = False
    ) -> tuple[Tensor, Tensor]:
        """One step down: the next sample, and the clean latent that `eps` implies. No noise is added."""
        a, previous = self._alphas[int(timestep)]
        clean = (sample - (1 - a) ** 0.5 * eps) / a**0.5
        return previous**0.5 * clean + (1 - previous) ** 0.5 * eps, clean
