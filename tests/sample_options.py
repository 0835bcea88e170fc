"""`codi_backend.sampling.samplers.sample` with its settings as loose arguments, which tests vary one at a time."""

from codi_backend.sampling import samplers
from codi_backend.sampling.settings import AlignmentSettings, SamplingSettings

_SAMPLING = {"steps", "sampler", "guidance", "seed", "num_candidates", "start_strength"}
_ALIGNMENT = {"alignment": "mode", "strength": "strength", "modality_guidance": "modality_guidance"}


def sample(diffuser, noise, prompt, **options):
    settings = SamplingSettings(**{name: options.pop(name) for name in _SAMPLING & options.keys()})
    alignment = AlignmentSettings(
        **{_ALIGNMENT[name]: options.pop(name) for name in _ALIGNMENT.keys() & options.keys()}
    )
    return samplers.sample(diffuser, noise, prompt, settings, alignment, **options)
