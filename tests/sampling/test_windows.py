"""Windows over long clips: where they lie, how they are blended, and runs in windows."""

import dataclasses
import itertools
import math

import pytest
import torch
from tiny import build, four

from codi_backend.conditioning.prompt import Prompt, interpolate
from codi_backend.conditioning.schedule import schedule
from codi_backend.config.published import CODI
from codi_backend.modalities import latent_shape
from codi_backend.presets.mini import CONFIG as MINI
from codi_backend.sampling.settings import WindowSettings
from codi_backend.sampling.windows import plan_windows, step_seconds, trained_steps, window_weights

TIMED = ("video", "audio")


def lengths_of(config, seconds, names=TIMED):
    return {name: latent_shape(config, name, seconds=seconds)[1] for name in names}


def trained(config, names):
    return min(trained_steps(config, name) * step_seconds(config, name) for name in names) if names else None


def plan(config, duration, names=TIMED, **settings):
    """By default in windows as long as the clips of the training."""
    settings = WindowSettings(**{"seconds": trained(config, names)} | settings)
    return plan_windows(config, lengths_of(config, duration, names), settings)


@pytest.mark.parametrize("config", [MINI, CODI], ids=["mini", "published"])
@pytest.mark.parametrize("names", [TIMED, ("video",), ("audio",)])
@pytest.mark.parametrize("settings", [{}, {"overlap": 0}, {"seconds": 1.7, "overlap": 0.7}])
@pytest.mark.parametrize("seconds", [2.6, 7.0, 10.0, 10.24, 20.0, 31.1])
def test_windows_cover_every_step_and_their_weights_add_up_to_one(config, names, settings, seconds):
    windows = plan(config, seconds, names, **settings)
    for name, steps in lengths_of(config, seconds, names).items():
        total = torch.zeros(steps)
        for window, weights in zip(windows, window_weights(windows, name, steps)):
            if len(windows) > 1:
                part = total[window.steps[name]]
                assert weights.shape == part.shape and (weights > 0).all()
                part += weights
            else:
                total += weights
        torch.testing.assert_close(total, torch.ones(steps), atol=1e-6, rtol=0)


@pytest.mark.parametrize("config", [MINI, CODI], ids=["mini", "published"])
@pytest.mark.parametrize("seconds", [5.0, 10.24, 20.0])
def test_streams_are_cut_at_equal_times(config, seconds):
    windows = plan(config, seconds)
    assert len(windows) > 1
    for window in windows:
        assert (window.steps["audio"].stop - window.steps["audio"].start) % 4 == 0
        for name in TIMED:
            step, part = step_seconds(config, name), window.steps[name]
            assert abs(part.start * step - window.begin) <= step / 2
            # The last one ends with the stream, which may be a unit of audio shorter.
            assert abs(part.stop * step - window.end) <= (step / 2 if window is not windows[-1] else 0.33)


def test_windows_of_the_small_model():
    windows = plan(MINI, 10.24)
    assert [window.steps["video"] for window in windows] == [slice(12 * i, 12 * i + 16) for i in range(5)]
    assert [window.steps["audio"] for window in windows] == [slice(24 * i, 24 * i + 32) for i in range(5)]
    assert [window.begin for window in windows] == pytest.approx([1.92 * i for i in range(5)])


@pytest.mark.parametrize("names", [TIMED, ("video",), ("audio",), ()])
@pytest.mark.parametrize("seconds", [0.2, 1.5, 2.56])
def test_what_is_not_longer_than_a_window_is_one(names, seconds):
    assert [dict(window.steps) for window in plan(MINI, seconds, names)] == [{}]


@pytest.mark.parametrize("config", [MINI, CODI], ids=["mini", "published"])
@pytest.mark.parametrize("names", [TIMED, ("video",), ("audio",)])
def test_by_default_what_exceeds_the_training_has_windows_of_its_length(config, names):
    shortest = trained(config, names)
    assert len(plan_windows(config, lengths_of(config, shortest, names))) == 1
    windows = plan_windows(config, lengths_of(config, 3 * shortest, names))
    assert len(windows) > 3
    assert all(-1e-6 < shortest - (window.end - window.begin) < 0.32 for window in windows)


def test_streams_of_their_own_lengths_are_one_window():
    """Without a length, a published model's video and audio differ in length."""
    lengths = {name: latent_shape(CODI, name)[1] for name in TIMED}
    assert len(plan_windows(CODI, lengths)) == 1
    with pytest.raises(
        ValueError, match=r"^seconds: windows need streams that last equally long \(video 2 s, audio 10"
    ):
        plan_windows(CODI, lengths, WindowSettings(1.0))


def test_weights_fade_over_the_overlap():
    windows = plan(MINI, 4.48, overlap=0.64)
    first, second = window_weights(windows, "video", 28)
    assert first.tolist() == pytest.approx([1.0] * 12 + [0.8, 0.6, 0.4, 0.2])
    assert second.tolist() == pytest.approx([0.2, 0.4, 0.6, 0.8] + [1.0] * 12)
    assert [w.tolist() for w in window_weights(windows, "text", 1)] == [[0.5], [0.5]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seconds": -1}, "^window: -1 is out of range"),
        ({"seconds": math.nan}, "^window: nan is out of range"),
        ({"overlap": -0.1}, "^overlap: -0.1 is out of range"),
        ({"overlap": 2.56}, "^overlap: 2.56 s leave nothing new in windows of 2.56 s; choose less than that.$"),
        ({"seconds": math.inf}, "^window: 32 s are 200 frames of a video, where a network takes 120 at once; choose"),
        ({"seconds": 25.6}, "^window: 25.6 s are 160 frames of a video"),
    ],
)
def test_bad_windows(settings, message):
    with pytest.raises(ValueError, match=message):
        plan(MINI, 32.0, **settings)


@pytest.fixture(scope="module")
def codi():
    """All four modalities; a clip of its training lasts 0.64 s."""
    return build(four())


@pytest.fixture(scope="module")
def prompts(codi):
    return [codi.prompt("text", text) for text in ("two red stars", "one blue star")]


@pytest.fixture
def generate(codi, prompts):
    def call(outputs=TIMED, prompt=prompts[0], **options):
        return codi.generate_latents(
            prompt, outputs, **{"steps": 2, "seed": 3, "sampler": "ddim", "window": 0.64} | options
        )

    return call


@pytest.mark.parametrize("outputs", [TIMED, ("video",), ("audio",), ("text", "image", *TIMED)])
def test_one_window_is_the_plain_run(generate, outputs):
    plain = generate(outputs, window=None)
    for options in ({}, {"seconds": 0.64}, {"window": math.inf}, {"window": 5.0, "overlap": 2.0}):
        same = generate(outputs, **options)
        assert all(torch.equal(z, same[name]) for name, z in plain.items())


@pytest.mark.parametrize("outputs", [TIMED, ("video",), ("audio",), ("text", "image", *TIMED)])
def test_every_window_is_predicted_as_a_clip_and_blended(codi, generate, monkeypatch, outputs):
    """One step's blended prediction, put together anew from the windows' own."""
    asked, forward = [], codi.diffuser.forward

    def watch(latents, *args, **options):
        asked.append(({name: z.clone() for name, z in latents.items()}, forward(latents, *args, **options)))
        return asked[-1][1]

    monkeypatch.setattr(codi.diffuser, "forward", watch)
    generate(outputs, seconds=1.6, steps=1, guidance=1, alignment_scale=1)
    windows = plan(codi.config, 1.6, [name for name in TIMED if name in outputs])
    assert len(asked) == len(windows) == 3
    for (latents, _), window in zip(asked, windows):
        assert set(outputs) <= latents.keys()
        for name in set(TIMED) & latents.keys():
            assert latents[name].shape[2] == window.steps[name].stop - window.steps[name].start
    for (first, _), (second, _) in itertools.pairwise(asked):
        for name in set(outputs) & {"text", "image"}:
            assert torch.equal(first[name], second[name])
        for name, shared in (("video", 1), ("audio", 2)):
            if name in outputs:
                assert torch.equal(first[name][:, :, -shared:], second[name][:, :, :shared])


def test_the_blend_is_the_weighted_mean(codi, prompts, monkeypatch):
    """A network that predicts a number of its own for each window."""
    numbers = itertools.count(1)

    def predict(latents, *_, **__):
        number = float(next(numbers))
        return {name: torch.full_like(z, number) for name, z in latents.items()}

    seen = []
    from codi_backend.sampling import samplers

    step = samplers._Run.step
    monkeypatch.setattr(samplers._Run, "step", lambda run, eps, t: (seen.append(eps), step(run, eps, t)))
    monkeypatch.setattr(codi.diffuser, "forward", predict)
    codi.generate_latents(
        prompts[0], [*TIMED, "image"], steps=1, guidance=1, seconds=0.96, window=0.64, alignment="none", candidates=1
    )
    (eps,) = seen
    # Two windows: frames 0-3 and 2-5, rows 0-7 and 4-11.
    assert eps["video"][0, 0, :, 0, 0].tolist() == pytest.approx([1, 1, 4 / 3, 5 / 3, 2, 2])
    rows = [1.0] * 4 + [1.2, 1.4, 1.6, 1.8] + [2.0] * 4
    assert eps["audio"][0, 0, :, 0].tolist() == pytest.approx(rows)
    torch.testing.assert_close(eps["image"], torch.full_like(eps["image"], 1.5))


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "dpmpp_2m_sde", "euler"])
def test_long_joint_runs_of_all_streams(generate, sampler):
    made = generate(("text", "image", *TIMED), seconds=1.6, sampler=sampler, candidates=3)
    assert made["video"].shape[2] == 10 and made["audio"].shape[2] == 20
    assert all(z.isfinite().all() for z in made.values())


def test_long_clips_are_the_same_in_any_batch(codi, generate, prompts):
    both = Prompt(*(torch.cat(pair) for pair in zip(*((p.embedding, p.unconditional) for p in prompts))))
    batch = generate(prompt=both, seconds=1.6, candidates=3)
    alone = generate(seconds=1.6, candidates=3)
    for name, z in alone.items():
        torch.testing.assert_close(batch[name][:1], z, atol=1e-3, rtol=1e-3)  # kernels differ with the batch


def test_held_streams_are_cut_too(codi, generate, monkeypatch):
    held = {"audio": torch.randn(1, *codi.latent_shape("audio", seconds=1.6))}
    seen, environment = [], codi.diffuser.clean_environment
    monkeypatch.setattr(
        codi.diffuser, "clean_environment", lambda z: (seen.append(z["audio"].clone()), environment(z))[1]
    )
    made = generate(seconds=1.6, held=held)
    assert torch.equal(made["audio"], held["audio"])
    scaled = held["audio"] * codi.config.audio_autoencoder.scale_factor
    for part, window in zip(seen, plan(codi.config, 1.6), strict=True):
        assert torch.equal(part, scaled[:, :, window.steps["audio"]])


def test_an_auxiliary_stream_is_cut_too(codi, generate, monkeypatch):
    config = dataclasses.replace(codi.config, auxiliary_streams={"video": ("audio",)})
    monkeypatch.setattr(codi, "config", config)
    alone, both = generate(["video"], seconds=1.6), generate(seconds=1.6)
    assert torch.equal(alone["video"], both["video"])


def test_progress_counts_windows(generate):
    calls = []
    generate(seconds=1.6, progress=lambda *call: calls.append(call))
    assert calls == [(number, 6) for number in range(1, 7)]


def test_a_run_can_be_interrupted_between_windows(codi, generate, monkeypatch):
    asked, forward = [], codi.diffuser.forward
    monkeypatch.setattr(
        codi.diffuser, "forward", lambda *args, **options: (asked.append(1), forward(*args, **options))[1]
    )

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(seconds=1.6, progress=stop, guidance=1)
    assert len(asked) == 1


def test_a_network_never_has_more_than_a_window(codi, generate, monkeypatch):
    longest, forward = [], codi.diffuser.forward

    def watch(latents, *args, **options):
        longest.append(latents["video"].shape[2])
        return forward(latents, *args, **options)

    monkeypatch.setattr(codi.diffuser, "forward", watch)
    assert generate(seconds=20.0, steps=1, guidance=1, overlap=0, window=None)["video"].shape[2] == 125
    assert max(longest) == 4


def test_prompts_by_time(codi, generate, prompts, monkeypatch):
    """Windows of 0.64 s begin at 0, 0.48 and 0.96 s."""
    seen, forward = [], codi.diffuser.forward

    def watch(latents, when, context, **options):
        seen.append(context)
        return forward(latents, when, context, **options)

    monkeypatch.setattr(codi.diffuser, "forward", watch)
    first, second = prompts
    generate(prompt=[(second, 0.8), (first, 0)], seconds=1.6, steps=1, guidance=1, window=None)
    mixed = interpolate([(first, 0.32), (second, 0.32)])
    for context, prompt in zip(seen, [first, mixed, second], strict=True):
        torch.testing.assert_close(context, prompt.embedding)


def test_one_prompt_by_time_is_that_prompt(generate, prompts):
    plain, timed = generate(seconds=1.6), generate(prompt=[(prompts[0], 0.0)], seconds=1.6)
    assert all(torch.equal(z, timed[name]) for name, z in plain.items())


def test_within_one_window_prompts_are_mixed(generate, prompts):
    mixed = generate(prompt=interpolate([(prompts[0], 0.16), (prompts[1], 0.48)]), seconds=0.64)
    timed = generate(prompt=[(prompts[0], 0.0), (prompts[1], 0.16)], seconds=0.64)
    for name, z in mixed.items():
        torch.testing.assert_close(timed[name], z, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("starts", "message"),
    [
        ((0.5, 1.0), "^prompts: the first one starts at 0.5 s; give one that starts at 0.$"),
        ((0, 0), "^prompts: two start at 0 s; mix them with `interpolate`, or give them two times.$"),
        ((0, -1), "^prompts: a start: -1 is out of range"),
        ((0, "soon"), "^prompts: a start: 'soon' is out of range"),
        ((), "^prompts: give at least one pair of a prompt and the seconds at which it starts.$"),
    ],
)
def test_bad_schedules(generate, prompts, starts, message):
    with pytest.raises(ValueError, match=message):
        generate(prompt=list(zip(prompts, starts)))
    if len(starts) == 2:
        with pytest.raises(ValueError, match=message):
            schedule(list(zip(prompts, starts)))


def test_a_schedule_needs_time(generate, prompts):
    with pytest.raises(ValueError, match="^prompts: no video or audio is generated, so prompts cannot start at times"):
        generate(["image"], prompt=[(prompts[0], 0.0), (prompts[1], 1.0)])
