"""Training of couplers: from saved latents, from a folder of files, in memory; a known log ratio; resuming."""

import json

import pytest
import torch
from safetensors.torch import save_file

from codi_backend.checkpoints.coupler_file import load_coupler, training_record
from codi_backend.cli.main import main
from codi_backend.training.coupler import CouplerStage, retrieval
from codi_backend.training.fit_coupler import default_axes, fit_coupler, new_coupler
from codi_backend.training.saved_latents import read_latents, read_pairs


def toy_pairs(count=300, classes=8, seed=0):
    """Two spaces whose latents show one of `classes` patterns each, the same for both."""
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.randn(classes, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    rhythms = torch.randn(classes, 6, 8, generator=torch.Generator().manual_seed(2))
    label = torch.randint(classes, (count,), generator=generator)

    def noisy(x):
        return x + 0.1 * torch.randn(x.shape, generator=generator)

    return {"image": noisy(patterns[label]), "audio": noisy(rhythms[label])}, label


def write(folder, latents, files=3):
    for stream, values in latents.items():
        (folder / stream).mkdir(parents=True)
        for i, part in enumerate(values.chunk(files)):
            save_file({"latent_tensor": part.contiguous(), "latent_format_version_0": torch.tensor([])},
                      folder / stream / f"shard_{i}.latent")  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def fitted():
    latents, _ = toy_pairs()
    losses = []
    return fit_coupler(latents, steps=60, batch_size=32, progress=lambda *row: losses.append(row)), losses


def test_a_coupler_learns_which_latents_belong_together(fitted):
    (coupler, history), reported = fitted
    latents, label = toy_pairs(64, seed=9)
    rows = retrieval(coupler, latents, (0.1, 20.0))
    distinct = float((label[:, None] == label).float().sum(1).reciprocal().mean())  # of duplicates one is right
    assert rows[0]["accuracy"] > 0.8 * distinct and rows[1]["accuracy"] < 0.5 * distinct
    assert [row["step"] for row in history] == list(range(1, 61)) and retrieval(new_coupler(latents), latents)[0][
        "accuracy"
    ] < 0.1
    assert reported[-1][:2] == (60, 60)


def test_training_in_memory_repeats_bit_for_bit_and_leaves_the_common_generator_alone():
    latents, _ = toy_pairs(40)
    state = torch.random.get_rng_state()
    one, two = (fit_coupler(latents, steps=2, batch_size=8)[0].state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert torch.equal(state, torch.random.get_rng_state())


def test_progress_can_stop_the_training():
    def stop(done, *_):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_coupler(toy_pairs(40)[0], steps=50, batch_size=8, progress=stop)


@pytest.mark.parametrize(
    "shape, axes", [((4, 5), "T"), ((4,), ""), ((4, 1, 1), ""), ((4, 8, 8), "HW"), ((4, 2, 8, 8), "THW")]
)
def test_axes_follow_from_the_rank(shape, axes):
    assert default_axes(torch.zeros(16, *shape)) == axes


def test_latents_that_cannot_be_trained_on_are_refused():
    good = torch.randn(20, 4, 8, 8)
    for latents, axes, words in [
        ({"a": good}, {}, "two streams"),
        ({"a": good, "b": good[:9]}, {}, "b: 9 latents are too few"),
        ({"a": good, "b": good}, {"b": "T"}, "do not have the axes 'T'"),
        ({"a": good, "b": good}, {"b": "XY"}, "do not have the axes 'XY'"),
        ({"a": good, "b": torch.zeros(20, 4, 1, 2, 3, 4)}, {}, "too many axes"),
    ]:
        with pytest.raises(ValueError, match=words):
            new_coupler(latents, axes)
    with pytest.raises(ValueError, match="different numbers of latents"):
        fit_coupler({"a": good, "b": torch.randn(19, 4)}, steps=1)


def test_a_batch_has_one_noise_level_a_group_and_sometimes_a_clean_stream():
    stage = CouplerStage(new_coupler(toy_pairs(40)[0]), toy_pairs(40)[0], group=8)
    clean = 0
    for seed in range(200):
        levels = stage._levels(2, 16, 2, 0.3, torch.Generator().manual_seed(seed)).unflatten(1, (2, 8))
        assert bool((levels == levels[:, :, :1]).all())
        clean += int((levels[:, :, 0] == 0).sum())
        assert not bool((levels.sum(0) == 0).any())
        both = (levels > 0).all(0)
        assert torch.equal(levels[0][both], levels[1][both])
    assert 125 < clean < 195  # two fifths of 400


def test_batches_with_videos_are_rarer_smaller_and_noisier():
    z = {"image": torch.randn(40, 4, 4, 4), "video": torch.randn(40, 4, 2, 4, 4), "audio": torch.randn(40, 4, 8)}
    coupler = new_coupler(z)
    stage, encode, levels = CouplerStage(coupler, z), coupler.tokens, {True: [], False: []}

    def tokens(space, latents, sigma):
        levels["video" in batch].append(float(sigma[0]) / coupler.spaces[space].std)
        return encode(space, latents, sigma)

    coupler.tokens, sizes = tokens, []
    for step in range(60):
        batch = stage.batch(step, 16, seed=0)
        sizes.append({name: len(rows) for name, rows in batch.items()})
        with torch.no_grad():
            stage(batch, torch.Generator().manual_seed(step))
    assert sizes[:4] == [dict.fromkeys(z, 4), *[{"image": 16, "audio": 16}] * 2, dict.fromkeys(z, 4)]
    with_video, without = (sorted(level for level in found if level > 0) for found in levels.values())
    assert with_video[len(with_video) // 2] > 1.3 * without[len(without) // 2]


def test_latents_of_files_that_comfyui_writes(tmp_path):
    values = torch.randn(3, 4, 8, 8)
    version = {"latent_format_version_0": torch.tensor([])}
    save_file({"latent_tensor": values} | version, tmp_path / "new.latent")
    save_file({"latent_tensor": values}, tmp_path / "old.latent")
    torch.save({"latents": [{"samples": v[None]} for v in values], "conditioning": []}, tmp_path / "shard_0000.pkl")
    save_file({"mine": values.half()}, tmp_path / "own.safetensors")
    for name, expected in [("new.latent", values), ("old.latent", values / 0.18215), ("shard_0000.pkl", values)]:
        torch.testing.assert_close(read_latents(tmp_path / name), expected)
    torch.testing.assert_close(read_latents(tmp_path / "own.safetensors"), values.half().float())


@pytest.mark.parametrize(
    "content, words",
    [
        ({"a": torch.zeros(2, 4, 8, 8, dtype=torch.int32)}, "holds no latents"),
        ({"a": torch.full((2, 4, 8, 8), float("nan"))}, "not finite|NaN"),
        ({"a": torch.zeros(3)}, "holds no latents"),
    ],
)
def test_files_without_latents_are_refused(tmp_path, content, words):
    save_file(content, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=words):
        read_latents(tmp_path / "x.safetensors")


def test_pairs_need_equal_names_and_sizes(tmp_path):
    latents, _ = toy_pairs(30)
    folder = write(tmp_path / "pairs", latents)
    found = read_pairs(folder)
    assert {name: z.shape for name, z in found.items()} == {name: z.shape for name, z in latents.items()}
    torch.testing.assert_close(found["audio"], latents["audio"])
    save_file({"x": torch.randn(10, 6, 9)}, folder / "audio" / "shard_9.safetensors")
    with pytest.raises(ValueError, match="image has no file shard_9"):
        read_pairs(folder)
    save_file({"x": torch.randn(10, 4, 4, 4)}, folder / "image" / "shard_9.safetensors")
    with pytest.raises(ValueError, match="in one size"):
        read_pairs(folder)
    with pytest.raises(ValueError, match="0 subfolders"):
        read_pairs(folder / "image")


def test_the_command_trains_from_saved_latents_and_resumes(tmp_path, capsys):
    folder = write(tmp_path / "pairs", toy_pairs(80)[0])
    arguments = ["train", "coupler", "--pairs", str(folder), "--batch-size", "8", "--out"]
    assert main([*arguments, str(tmp_path / "whole"), "--steps", "4"]) == 0
    path = tmp_path / "whole" / "coupler.safetensors"
    coupler, record = load_coupler(path), training_record(path)
    assert [space.name for space in coupler.spaces] == ["audio", "image"] and record["options"]["steps"] == 4
    assert len(record["retrieval"]["audio-image"]) == 5
    assert json.loads((tmp_path / "whole" / "coupler" / "retrieval.json").read_text()) == record["retrieval"]
    assert "held-out pairs" in capsys.readouterr().out
    assert main([*arguments, str(tmp_path / "whole"), "--steps", "4"]) == 0  # finished: the same again
    again = load_coupler(path).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in coupler.state_dict().items())
    other = write(tmp_path / "other", toy_pairs(80, seed=5)[0])
    assert main(["train", "coupler", "--pairs", str(other), "--out", str(tmp_path / "whole"), "--batch-size", "8",
                 "--steps", "4"]) == 1  # fmt: skip
    assert "other --data" in capsys.readouterr().err


def test_the_command_refuses_what_does_not_go_together(tmp_path, capsys):
    folder = write(tmp_path / "pairs", toy_pairs(80)[0])
    for arguments, words in [
        (["coupler", "--data", str(folder)], "give --pairs"),
        (["alignment", "--pairs", str(folder)], "stage coupler"),
        (["coupler", "--pairs", str(folder), "--streams", "image", "audio"], "named by their folders"),
        (["coupler", "--pairs", str(folder), "--axes", "sound=FT"], "no latents sound"),
        (["coupler", "--pairs", str(folder), "--axes", "image=FTX"], "do not have the axes"),
    ]:
        assert main(["train", *arguments, "--out", str(tmp_path / "out")]) == 1
        assert words in capsys.readouterr().err
