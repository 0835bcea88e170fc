"""Several processes, micro-batches and helpers: the same training as one process."""

import json

import pytest
import tiny
import torch
from accelerate.state import AcceleratorState
from launch import ROOT, launch
from toy_stage import run

from codi_backend.training.execution import Execution, checkpoint_blocks
from codi_backend.training.shares import SharedNoise, share


def curve(folder):
    return json.loads((folder / "toy" / "loss.json").read_text())


def state(folder):
    return torch.load(folder / "toy" / "state.pt", weights_only=True)


def assert_same(a, b, tolerance=1e-4):
    """Two loss curves agree."""
    assert [row.keys() for row in a] == [row.keys() for row in b]
    for one, other in zip(a, b, strict=True):
        assert one == pytest.approx(other, rel=tolerance, abs=tolerance)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """One process."""
    folder = tmp_path_factory.mktemp("one")
    return folder, run(folder)[0]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two processes under `accelerate launch`: folder and output."""
    folder = tmp_path_factory.mktemp("two")
    done = launch(str(ROOT / "tests" / "toy_stage.py"), str(folder))
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, done.stdout


def test_two_processes_learn_as_one(one, two):
    assert two[1].count("MACHINE cpu, 1 threads, 2 process(es)") == 2
    assert_same(curve(two[0] / "straight"), curve(one[0]))
    for name, value in state(two[0] / "straight")["trained"].items():
        torch.testing.assert_close(value, state(one[0])["trained"][name], rtol=1e-3, atol=1e-4)


def test_two_processes_resume_exactly(two):
    assert curve(two[0] / "cut") == curve(two[0] / "straight")
    straight, cut = (state(two[0] / name)["averaged"] for name in ("straight", "cut"))
    assert all(torch.equal(straight[name], cut[name]) for name in straight)


def test_one_process_goes_on_where_two_stopped(one, two, tmp_path):
    saved = two[0] / "cut" / "toy" / "state.pt"
    assert saved.exists()
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "state.pt").write_bytes(saved.read_bytes())
    weights, _ = run(tmp_path, fail_at=0)
    assert all(torch.equal(weights[name], value) for name, value in state(two[0] / "cut")["averaged"].items())


def test_micro_batches_of_two_processes(two, tmp_path):
    run(tmp_path, contrast=False)
    assert_same(curve(two[0] / "micro"), curve(tmp_path))


def test_the_first_process_reports(two):
    lines = [line for line in two[1].splitlines() if line.startswith("REPORT")]
    assert [line.split("  ")[0] for line in lines] == [f"REPORT toy {step}/10" for step in (3, 6, 9, 10)]


def test_a_batch_that_cannot_be_shared(two, tmp_path):
    assert "ERROR A batch of 7 cannot be shared evenly by 2 process(es)" in two[1]
    with pytest.raises(ValueError, match="with 3 micro-batch.es. each: choose a multiple of 3"):
        run(tmp_path, execution=Execution(micro_batches=3))


@pytest.mark.parametrize("count", [2, 8])
def test_micro_batches(tmp_path, count):
    whole, parts = (run(tmp_path / str(n), contrast=False, execution=Execution(micro_batches=n))[0] for n in (1, count))
    assert_same(curve(tmp_path / str(count)), curve(tmp_path / "1"))
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-3, atol=1e-4)


def test_workers_change_nothing(one, tmp_path):
    weights, _ = run(tmp_path, execution=Execution(workers=2))
    assert all(torch.equal(weights[name], value) for name, value in one[1].items())


def test_half_precision(one, tmp_path):
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        weights, _ = run(tmp_path, execution=Execution(precision="bf16"))
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
    assert_same(curve(tmp_path), curve(one[0]), tolerance=0.1)
    assert curve(tmp_path) != curve(one[0])
    assert all(value.dtype == torch.float32 for value in weights.values())


def test_checkpointing():
    codi = tiny.build()
    latents = {"image": torch.randn(2, 4, 8, 8), "audio": torch.randn(2, 8, 8, 8)}
    arguments = latents, torch.tensor([10, 600]), torch.randn(2, 1, 32)
    found, calls = [], []
    codi.diffuser.networks["image"].middle_block[0].register_forward_hook(lambda *_: calls.append(1))
    for _ in range(2):
        sum(out.square().sum() for out in codi.diffuser(*arguments).values()).backward()
        found.append({name: p.grad for name, p in codi.diffuser.named_parameters() if p.grad is not None})
        codi.diffuser.zero_grad()
        checkpoint_blocks(codi.diffuser)
    assert len(calls) == 1 + 2
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient)


def test_samples_are_of_the_average(one, tmp_path):
    weights, _ = run(tmp_path, execution=Execution(sample_every=4))
    assert {path.name for path in (tmp_path / "toy" / "samples").iterdir()} == {"4.txt", "8.txt", "10.txt"}
    assert (tmp_path / "toy" / "samples" / "10.txt").read_text() == str(weights["a.weight"].tolist())
    assert all(torch.equal(weights[name], value) for name, value in one[1].items())
    run(tmp_path / "none", execution=Execution(sample_every=0))
    assert not (tmp_path / "none" / "toy" / "samples").exists()


def test_curves_for_tensorboard(one):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(one[0] / "toy" / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"loss", "length", "learning_rate"}
    rows = curve(one[0])
    for key in ("loss", "length"):
        assert [e.step for e in events.Scalars(key)] == [row["step"] for row in rows]
        assert [e.value for e in events.Scalars(key)] == pytest.approx([row[key] for row in rows])


def test_share():
    batch = {"x": torch.arange(6), "pair": (torch.arange(12).view(6, 2), list("abcdef"))}
    cut = share(batch, 1, 3)
    assert cut["x"].tolist() == [2, 3] and cut["pair"][0].tolist() == [[4, 5], [6, 7]] and cut["pair"][1] == ["c", "d"]


@pytest.mark.parametrize(
    "draw",
    [
        lambda n, g: torch.randn(n, 5, generator=g),
        lambda n, g: torch.randn((n, 5), generator=g),
        lambda n, g: torch.rand(size=(n,), generator=g),
        lambda n, g: torch.randint(0, 1000, (n,), generator=g),
        lambda n, g: torch.randint(1000, (n, 2), generator=g),
    ],
)
def test_shared_noise(draw):
    whole, parts = draw(6, torch.Generator().manual_seed(1)), []
    for part in range(3):
        generator = torch.Generator().manual_seed(1)
        with SharedNoise(generator, part, 3):
            parts.append(draw(2, generator))
            other = draw(2, torch.Generator().manual_seed(1))
        assert torch.equal(other, draw(2, torch.Generator().manual_seed(1)))
    assert torch.equal(torch.cat(parts), whole)


def test_noise_that_cannot_be_shared():
    generator = torch.Generator()
    with SharedNoise(generator, 0, 2), pytest.raises(TypeError, match="noise by normal_: use torch.randn, rand or"):
        torch.empty(3).normal_(generator=generator)


@pytest.mark.parametrize(
    ("settings", "message"), [({"precision": "int8"}, "no precision 'int8'"), ({"micro_batches": 0}, "in 0 parts")]
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        Execution(**settings)
