"""Best of several candidates."""

import dataclasses
import json

import pytest
import torch
from sample_options import sample
from tiny import save
from torch.nn import functional as F

from codi_backend.cli.main import main
from codi_backend.evaluation.similarity import compare_alignments
from codi_backend.sampling import samplers as sampling
from codi_backend.sampling.best_of_n import default_candidates, prune, select
from codi_backend.sampling.noise import stream_noise
from codi_backend.sampling.samplers import SAMPLERS
from codi_backend.training.samples import write_samples

SHAPES = {"image": (2, 4, 8, 8), "audio": (2, 8, 8, 8)}
RED, BLUE, GREEN = F.normalize(torch.randn(3, 8, generator=torch.Generator().manual_seed(0)), dim=-1)


class IdentityEncoder:
    """Environment tokens are the latents."""

    def clean_environment(self, latents):
        return latents


def latents(*rows):
    """A stream's tokens, row by row of one token or of several moments."""
    return torch.stack([row.reshape(-1, 8) for row in rows])


@pytest.mark.parametrize(
    ("first", "second", "best"),
    [
        ((RED, RED, GREEN), (BLUE, RED, BLUE), 1),
        ((GREEN, RED, BLUE), (GREEN, GREEN, GREEN), 0),
        ((RED, RED, GREEN), (RED, RED, GREEN), 2),  # what others do not do as well, so that all do not become alike
    ],
)
def test_the_one_whose_streams_agree_is_kept(first, second, best):
    streams = {"image": latents(*first), "audio": latents(*second)}
    assert prune(IdentityEncoder(), streams, 3).tolist() == [best]


def test_every_result_has_its_own():
    """Two results of two candidates each, which come one after the other."""
    streams = {"image": latents(RED, RED, RED, RED), "audio": latents(RED, BLUE, GREEN, RED)}
    assert prune(IdentityEncoder(), streams, 2).tolist() == [0, 3]


def test_three_streams_are_compared_in_pairs():
    """The second candidate has two pairs that do not fit, the first one."""
    streams = {
        "text": latents(RED, RED, GREEN),
        "image": latents(RED, BLUE, GREEN),
        "audio": latents(BLUE, GREEN, GREEN),
    }
    assert prune(IdentityEncoder(), streams, 3).tolist() == [2]


def test_streams_with_time_are_compared_moment_by_moment():
    """The same moments, so that their mean is equal, in the same order or not; one stream has twice the steps."""
    forth, back = torch.stack([RED, RED, BLUE, BLUE]), torch.stack([BLUE, BLUE, RED, RED])
    streams = {"video": latents(forth, forth), "audio": latents(back[::2], forth[::2])}
    assert prune(IdentityEncoder(), streams, 2).tolist() == [1]


def test_the_better_ones_come_first():
    """Of two results, whose candidates come one after the other, the worst is left out."""
    streams = {
        "image": latents(RED, BLUE, GREEN, GREEN, BLUE, RED),
        "audio": latents(BLUE, BLUE, GREEN, GREEN, BLUE, BLUE),
    }
    assert prune(IdentityEncoder(), streams, 3, keep=2).tolist() == [2, 3, 4, 1]


def test_between_the_last_two_it_is_likeness_that_decides():
    """The first has the best InfoNCE score; but its streams are less alike than the second's."""
    near = F.normalize(GREEN + 0.3 * BLUE, dim=-1)
    streams = {"image": latents(GREEN, RED, RED), "audio": latents(near, RED, F.normalize(RED + BLUE, dim=-1))}
    assert prune(IdentityEncoder(), streams, 3).tolist() == [0]
    assert select(IdentityEncoder(), streams) == 1
    assert select(IdentityEncoder(), {name: z[:1] for name, z in streams.items()}) == 0


@pytest.fixture
def run(codi):
    prompt = codi.prompt("text", ["three red stars", "a blue cross"])

    def call(candidates=1, streams=SHAPES, **changes):
        noise = {name: stream_noise(SHAPES[name], 1, name, num_candidates=candidates) for name in streams}
        options = {"steps": 4, "guidance": 4.0, "sampler": "dpmpp_2m_sde", "seed": 1, **changes}
        return sample(codi.diffuser, noise, prompt, num_candidates=candidates, **options)

    return call


def choose(monkeypatch, *wanted):
    """Let these be the best of each result, after second place at the first of two pruning levels.

    Returns the streams that they were chosen from, level by level.
    """
    seen, before = [], []

    def best(diffuser, streams, number, keep, windows):
        seen.append({name: z.clone() for name, z in streams.items()})
        winners = torch.tensor(wanted)
        if keep == 2:
            places = torch.stack([(winners + 1) % number, winners])
        else:
            places = torch.ones(1, len(wanted), dtype=torch.int64) if before == [2] else winners[None]
        before[:] = [keep]
        return (places * len(wanted) + torch.arange(len(wanted))).flatten()

    monkeypatch.setattr(sampling, "prune", best)
    return seen


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_kept_candidate_goes_on_as_if_alone(run, monkeypatch, sampler):
    choose(monkeypatch, 0, 0)
    alone, best = run(sampler=sampler), run(3, sampler=sampler)
    for name, z in alone.items():
        torch.testing.assert_close(best[name], z, atol=1e-4, rtol=1e-4)
    choose(monkeypatch, 2, 0)
    mixed = run(3, sampler=sampler)
    more = run(4, sampler=sampler)
    for name, z in alone.items():
        torch.testing.assert_close(mixed[name][1], z[1], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(mixed[name], more[name], atol=1e-4, rtol=1e-4)
        assert (mixed[name][0] - z[0]).abs().max() > 0.1, "the third candidate is the first"


def test_they_are_compared_by_estimates_of_what_they_become(run, monkeypatch):
    """With the last step at the latest, when the estimate is the result."""
    seen = choose(monkeypatch, 0, 1)
    out = run(2, steps=1, sampler="euler")
    assert [len(z) for z in seen[0].values()] == [4, 4] and len(seen) == 1
    for name, z in out.items():
        torch.testing.assert_close(seen[0][name][[0, 3]], z, atol=1e-4, rtol=1e-4)
    out = run(3, steps=1, sampler="euler")
    for name, z in out.items():
        torch.testing.assert_close(seen[1][name][[0, 3]], z, atol=1e-4, rtol=1e-4)
        assert torch.equal(seen[2][name], seen[1][name][[2, 5, 0, 3]])


@pytest.mark.parametrize(("candidates", "rows", "steps"), [(5, [10, 4], [12, 18]), (2, [4], [18])])
def test_two_are_left_from_the_middle_and_one_from_a_sixth(run, monkeypatch, candidates, rows, steps):
    """Of 20 steps the 12th is at timestep 450, the 18th at 150."""
    seen, chosen = choose(monkeypatch, candidates - 2, 0), {}
    run(candidates, steps=20, progress=lambda step, _: chosen.setdefault(len(seen), step))
    assert [len(streams["image"]) for streams in seen] == rows
    assert [step for levels, step in chosen.items() if levels] == steps


def test_with_a_held_stream(run, monkeypatch):
    seen = choose(monkeypatch, 0, 0)
    held = {"audio": torch.randn(SHAPES["audio"], generator=torch.Generator().manual_seed(5))}
    torch.testing.assert_close(run(3, held=held)["image"], run(held=held)["image"], atol=1e-4, rtol=1e-4)
    assert [len(streams["audio"]) for streams in seen] == [6, 4]
    for streams in seen:
        assert torch.equal(streams["audio"], torch.cat([held["audio"]] * (len(streams["audio"]) // 2)))


def test_with_a_start(run, monkeypatch):
    choose(monkeypatch, 0, 0)
    start = {name: torch.full(shape, 0.5) for name, shape in SHAPES.items()}
    one, best = (run(n, start=start, start_strength=0.5)["image"] for n in (1, 3))
    torch.testing.assert_close(best, one, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"streams": ["image"]}, "generate or hold two streams or more"),
        ({"alignment": "none"}, 'with alignment "paper" and a model with latent alignment'),
        ({"alignment": "released"}, "or choose 1 candidate"),
    ],
)
def test_they_need_several_aligned_streams(run, changes, message):
    with pytest.raises(ValueError, match=message):
        run(2, **changes)


@pytest.mark.parametrize("number", [-1, 0, 17])
def test_how_many(codi, number):
    with pytest.raises(ValueError, match=f"candidates: {number} is out of range; choose a whole number from 1 to 16"):
        codi.generate(codi.prompt("text", "stars"), ["image", "audio"], candidates=number)


@pytest.fixture
def asked(codi, monkeypatch):
    """With how many candidates a model samples whose own number is 3; the latents it gives are its noise."""
    numbers = []

    def sampled(diffuser, noise, prompt, settings, alignment, *, held, **options):
        numbers.append(settings.num_candidates)
        return {name: z[: len(z) // settings.num_candidates] for name, z in noise.items() if name not in held}

    monkeypatch.setattr("codi_backend.sampling.latents.sample", sampled)
    monkeypatch.setattr(codi, "config", dataclasses.replace(codi.config, num_candidates=3))
    return numbers


def test_a_model_has_its_own_number(codi, asked):
    """For streams that can be compared, be they made or held, and unless another number is given."""
    prompt, both = codi.prompt("text", "stars"), ["image", "audio"]
    held = {"audio": torch.zeros(1, *codi.latent_shape("audio"))}
    for outputs, options in [
        (both, {}),
        (["image"], {"held": held}),
        (both, {"candidates": 2}),
        (["image"], {}),
        (both, {"alignment": "none"}),
        (both, {"alignment": "released"}),
    ]:
        codi.generate_latents(prompt, outputs, **options)
    assert asked == [3, 3, 2, 1, 1, 1]
    no_connectors = dataclasses.replace(codi.config.diffuser.networks["audio"], connector=(False,) * 4)
    networks = {**codi.config.diffuser.networks, "audio": no_connectors}
    unaligned = dataclasses.replace(codi.config, diffuser=dataclasses.replace(codi.config.diffuser, networks=networks))
    assert default_candidates(codi.config, both, "paper") == 3
    assert default_candidates(unaligned, both, "paper") == 1


def test_comparisons_and_samples_during_training_are_the_first_candidate(codi, asked, tmp_path):
    compare_alignments(codi, [("text", ["stars"], 1.0)], ["image", "audio"])
    write_samples(codi, ["image", "audio"], ["stars"], tmp_path, 1)
    assert asked == [1, 1, 1]


def test_command(tmp_path, checkpoint, monkeypatch):
    choose(monkeypatch, 4)
    arguments = ["generate", "--model", str(checkpoint), "--steps", "3", "--outputs", "image", "audio", "--out"]
    for number in (1, 5):
        assert main([*arguments, str(tmp_path / f"{number}"), "--candidates", f"{number}"]) == 0
    results = [json.loads((tmp_path / f"{n}/result.json").read_text()) for n in (1, 5)]
    assert [result["candidates"] for result in results] == [1, 5]
    images = [(tmp_path / f"{n}/image.png").read_bytes() for n in (1, 5)]
    assert images[0] != images[1]


def test_command_uses_the_models_own_number(tmp_path, codi, monkeypatch):
    monkeypatch.setattr(codi, "config", dataclasses.replace(codi.config, num_candidates=2))
    file = save(tmp_path / "two.safetensors", codi)
    command, found = ["generate", "--model", str(file), "--steps", "1", "--out", str(tmp_path), "--outputs"], []
    for outputs in (["image", "audio"], ["image"]):
        assert main([*command, *outputs]) == 0
        found.append(json.loads((tmp_path / "result.json").read_text())["candidates"])
    assert found == [2, 1]
