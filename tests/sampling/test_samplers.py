"""Samplers, guidance, and streams side by side."""

import pytest
import torch
from sample_options import sample

from codi_backend.conditioning.prompt import Prompt
from codi_backend.models.noise_schedule import alphas_cumprod
from codi_backend.sampling.noise import stream_noise
from codi_backend.sampling.samplers import SAMPLERS

SHAPES = {"image": (2, 4, 8, 8), "audio": (2, 8, 8, 8)}
NOISE = {name: stream_noise(shape, 1, name) for name, shape in SHAPES.items()}
DEFAULTS = {"steps": 2, "guidance": 4.0, "sampler": "ddim", "alignment": "paper", "strength": 1.0}


@pytest.fixture(scope="module")
def prompt(codi):
    return codi.prompt("text", ["three red stars", "a blue cross"])


@pytest.fixture
def run(codi, prompt):
    def call(noise=NOISE, diffuser=codi.diffuser, **changes):
        return sample(diffuser, noise, prompt, **{**DEFAULTS, **changes})

    return call


def only(name):
    return {name: NOISE[name]}


class Oracle:
    """Knows that the data are a single point, which the context may move; records what it is asked."""

    def __init__(self, point=0.8, shift=0.0):
        self.point, self.shift, self.asked = point, shift, []

    def __call__(self, latents, timesteps, context, *, alignment, strength, modality_guidance=1.0, predict=None):
        self.asked.append((timesteps, context, alignment, strength, float(latents["image"].std())))
        alphas = alphas_cumprod()
        low = timesteps.long().clamp(max=998)
        a = torch.lerp(alphas[low], alphas[low + 1], timesteps.float() - low)
        out = {}
        for name, x in latents.items():
            scale = a.reshape(-1, *[1] * (x.ndim - 1))
            point = self.point + self.shift * context[:, 0, :1].reshape(scale.shape)
            out[name] = (x - scale.sqrt() * point) / (1 - scale).sqrt()
        return out


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_runs(run, sampler):
    out = run(sampler=sampler)
    assert {name: x.shape for name, x in out.items()} == SHAPES
    assert all(x.isfinite().all() for x in out.values())
    again = run(sampler=sampler)
    assert all(torch.equal(x, again[name]) for name, x in out.items())


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_diffuser_is_given_unit_variance(run, sampler):
    oracle = Oracle(point=0)
    run(diffuser=oracle, sampler=sampler, guidance=1)
    assert oracle.asked[0][-1] == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_sampling_begins_where_noising_ends(run, sampler):
    """Latents of one point leave their share in the noise, of which a network has never seen the like without it."""
    given = []

    def watch(latents, timesteps, *_, **__):
        given.append((latents["image"].clone(), float(timesteps[0])))
        return {name: torch.zeros_like(x) for name, x in latents.items()}

    means = (0.5, -1.0, 0.0, 2.0)
    run(only("image"), diffuser=watch, sampler=sampler, latent_means={"image": means})
    first, when = given[0]
    clean = torch.tensor(means)[None, :, None, None].expand(first.shape)
    alpha = alphas_cumprod()[int(when)]
    torch.testing.assert_close(first, alpha.sqrt() * clean + NOISE["image"], atol=0.01, rtol=0)


def test_a_start_takes_the_place_of_the_mean(run):
    start = {"image": torch.ones(SHAPES["image"])}
    with_means, without = (
        run(only("image"), start=start, start_strength=0.5, latent_means=means)
        for means in ({"image": (9.0,) * 4}, None)
    )
    assert torch.equal(with_means["image"], without["image"])


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_finds_the_only_point(run, sampler):
    for x in run(diffuser=Oracle(), sampler=sampler, steps=20).values():
        assert (x - 0.8).abs().mean() < 0.03


def test_one_ddim_step(run, codi, prompt):
    out = run(only("image"), steps=1, guidance=1)
    first, last = alphas_cumprod()[[0, 999]]
    with torch.inference_mode():
        eps = codi.diffuser(only("image"), torch.tensor([999, 999]), prompt.embedding)["image"]
    clean = (NOISE["image"] - (1 - last).sqrt() * eps) / last.sqrt()
    torch.testing.assert_close(out["image"], first.sqrt() * clean + (1 - first).sqrt() * eps, rtol=1e-4, atol=1e-3)


def test_guidance_1_asks_for_the_prompt_alone(run, prompt):
    oracle = Oracle()
    run(diffuser=oracle, guidance=1)
    assert all(torch.equal(context, prompt.embedding) for _, context, *_ in oracle.asked)


def test_guidance_1_is_the_limit_of_guidance(run):
    exact, close = run(guidance=1), run(guidance=1 + 1e-6)
    for name in SHAPES:
        torch.testing.assert_close(close[name], exact[name], rtol=1e-3, atol=1e-3)


def test_guidance_0_ignores_the_prompt(run, codi, prompt):
    empty = Prompt(prompt.unconditional, prompt.unconditional)
    without = sample(codi.diffuser, NOISE, empty, **{**DEFAULTS, "guidance": 1, "alignment": "none"})
    for name, x in run(guidance=0).items():
        torch.testing.assert_close(x, without[name], rtol=1e-3, atol=1e-3)


def test_guidance_extrapolates_from_the_unconditional(run, prompt):
    means = {g: run(diffuser=Oracle(shift=1), guidance=g, steps=20)["image"].mean((1, 2, 3)) for g in (0, 1, 3)}
    step = means[1] - means[0]
    assert step.abs().min() > 0.01
    torch.testing.assert_close(means[3] - means[0], 3 * step, rtol=0.02, atol=0.01)


def test_all_streams_share_the_noise_level(run):
    oracle = Oracle()
    run(diffuser=oracle, steps=5, alignment="none", strength=0.5)
    assert len(oracle.asked) == 10  # with and without the prompt
    assert all((t == t[0]).all() for t, *_ in oracle.asked)
    assert {(a, s) for _, _, a, s, _ in oracle.asked} == {("none", 0.5)}
    times = [float(t[0]) for t, *_ in oracle.asked]
    assert times == sorted(times, reverse=True) and times[0] == 999


@pytest.mark.parametrize(
    ("alignment", "unconditional"), [("paper", "none"), ("released", "released"), ("none", "none")]
)
def test_the_unconditional_branch_is_unaligned(run, prompt, alignment, unconditional):
    oracle = Oracle()
    run(diffuser=oracle, steps=1, alignment=alignment, sampler="ddim")
    asked = [(torch.equal(context, prompt.embedding), how) for _, context, how, *_ in oracle.asked]
    assert asked == [(True, alignment), (False, unconditional)]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_without_alignment_a_stream_is_as_if_alone(run, sampler):
    together = run(alignment="none", sampler=sampler)
    for name in SHAPES:
        assert torch.equal(together[name], run(only(name), sampler=sampler)[name])


def test_with_alignment_streams_attend_to_each_other(run):
    together, apart = run(alignment="paper"), run(alignment="none")
    for name in SHAPES:
        assert (together[name] - apart[name]).abs().max() > 1e-3
    unaligned = run(alignment="paper", strength=0.0)
    assert all(torch.equal(unaligned[name], apart[name]) for name in SHAPES)


def test_alignment_scale_is_a_guidance_scale_of_its_own(codi, run, prompt):
    """One step, from which the prediction follows: e_0 + w (e_prompt - e_0) + w s (e_joint - e_prompt)."""
    when = torch.full((2,), 999)

    def predict(context, alignment):
        with torch.inference_mode():
            return codi.diffuser(NOISE, when, context, alignment=alignment)

    nothing, alone = (predict(c, "none") for c in (prompt.unconditional, prompt.embedding))
    joint = predict(prompt.embedding, "paper")
    alpha = alphas_cumprod()[999]
    for name, x in run(steps=1, guidance=4.0, modality_guidance=1.5).items():
        eps = nothing[name] + 4 * (alone[name] - nothing[name]) + 6 * (joint[name] - alone[name])
        clean = (NOISE[name] - (1 - alpha).sqrt() * eps) / alpha.sqrt()
        alpha_0 = alphas_cumprod()[0]
        torch.testing.assert_close(x, alpha_0.sqrt() * clean + (1 - alpha_0).sqrt() * eps, rtol=1e-3, atol=1e-2)


def test_alignment_scale_is_for_high_noise(run):
    asked = []

    def watch(latents, timesteps, _, *, alignment, strength, modality_guidance=None):
        asked.append((float(timesteps[0]), alignment, modality_guidance))
        return {name: torch.zeros_like(x) for name, x in latents.items()}

    run(diffuser=watch, steps=10, modality_guidance=1.7)
    joint = [(t, scale) for t, alignment, scale in asked if alignment == "paper"]
    assert joint == [(t, 1.7 if t >= 500 else 1.0) for t in range(999, 0, -100)]
    assert [(t, scale) for t, alignment, scale in asked if alignment == "none"] == [(t, None) for t, _ in joint]


def test_progress(run):
    seen = []
    run(steps=4, progress=lambda *args: seen.append(args))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_progress_can_end_the_run(run):
    oracle = Oracle()

    def stop(done, total):
        if done == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        run(diffuser=oracle, steps=4, progress=stop)
    assert len(oracle.asked) == 4  # two steps, each with and without the prompt


class Recorder(Oracle):
    """Also records its inputs, and the latents that environment tokens are made from."""

    def __init__(self):
        super().__init__()
        self.inputs, self.encoded = [], []

    def clean_environment(self, latents):
        self.encoded.append(latents)
        return {name: 2 * z for name, z in latents.items()}

    def __call__(self, latents, timesteps, context, *, environment=None, **settings):
        self.inputs.append((latents, environment, settings["alignment"]))
        return super().__call__(latents, timesteps, context, **settings)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_held_streams_are_sources_without_noise(run, sampler):
    recorder = Recorder()
    clean = torch.full(SHAPES["audio"], 0.8)
    out = run(diffuser=recorder, sampler=sampler, steps=5, held={"audio": clean})
    assert out.keys() == {"image"}
    (encoded,) = recorder.encoded  # once for all steps
    assert torch.equal(encoded["audio"], clean)
    joint = [(latents, tokens) for latents, tokens, alignment in recorder.inputs if alignment == "paper"]
    assert len(joint) == 5
    for latents, tokens in joint:
        assert torch.equal(latents["audio"], clean)
        assert torch.equal(tokens["audio"], 2 * clean) and tokens.keys() == {"audio"}
    assert all("audio" not in latents for latents, _, alignment in recorder.inputs if alignment == "none")


def test_the_clean_environment_is_that_of_no_noise(codi, monkeypatch):
    asked = []
    environment = type(codi.diffuser).environment

    def watch(self, latents, timesteps):
        asked.append(timesteps)
        return environment(self, latents, timesteps)

    monkeypatch.setattr(type(codi.diffuser), "environment", watch)
    tokens = codi.diffuser.clean_environment(NOISE)
    assert tokens.keys() == NOISE.keys()
    assert len(asked) == 1 and torch.equal(asked[0], torch.zeros(2))


def test_streams_attend_to_held_streams(run):
    held = {"audio": torch.randn(SHAPES["audio"], generator=torch.Generator().manual_seed(5))}
    one, other = run(held=held), run(held={"audio": -held["audio"]})
    assert (one["image"] - other["image"]).abs().max() > 1e-3
    alone = run(only("image"))
    assert torch.equal(run(held=held, alignment="none")["image"], alone["image"])
    assert torch.equal(run(held=held, strength=0.0)["image"], alone["image"])
    assert torch.equal(run(held=held, modality_guidance=1.7)["image"], one["image"])  # it is for noisy source streams


def test_something_must_be_generated(run):
    with pytest.raises(ValueError, match="Every stream is held: name at least one output"):
        run(held=NOISE)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampler": "heun"}, "no sampler 'heun'; choose from dpmpp_2m, dpmpp_2m_sde, ddim, euler, ddim_released"),
        ({"steps": 0}, "steps: 0 is out of range; choose a whole number from 1 to 1000"),
        ({"steps": 1001}, "steps: 1001 is out of range"),
        ({"alignment": "loud"}, "no alignment 'loud'; choose from"),
        ({"strength": -1.0}, "strength: .* is out of range; choose a number from 0 to 100"),
    ],
)
def test_bad_arguments(run, changes, message):
    with pytest.raises(ValueError, match=message):
        run(**changes)
