"""The training loop, on a stage that takes no time."""

import dataclasses
import json
import re

import pytest
import torch
from PIL import Image
from torch import nn

from codi_backend.training.loop import Options, Stage, train

# Neither divides the other, so that a resume starts between two lines of the log.
OPTIONS = Options(steps=12, batch_size=4, learning_rate=0.05, warmup=3, seed=7, save_every=5, log_every=4)


class Line(Stage):
    """Fits a line to noisy points; `fail_at` ends the run there, as a power cut would."""

    name = "line"

    def __init__(self, fail_at=None, nan_at=None):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(3, 8), nn.GELU(), nn.Linear(8, 1))
        self.fixed = nn.Linear(1, 1).requires_grad_(False)
        self.fail_at, self.nan_at = fail_at, nan_at

    def batch(self, step, size, seed):
        if step == self.fail_at:
            raise KeyboardInterrupt
        scale = float("nan") if step == self.nan_at else 1
        return scale * torch.randn(size, 3, generator=torch.Generator().manual_seed(1000 * seed + step))

    def forward(self, batch, generator):
        target = batch.sum(1, keepdim=True) + 0.1 * torch.randn(len(batch), 1, generator=generator)
        error = (self.fixed(self.net(batch)) - target).square().mean()
        return error, {"twice": 2 * float(error.detach())}


def run(out, options=OPTIONS, **stage):
    stage = Line(**stage)
    record = train(stage, options, out, lambda line: None)
    return stage.state_dict(), json.loads((out / "line" / "loss.json").read_text()), record


def equal(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("straight")


@pytest.fixture(scope="module")
def straight(folder):
    """An uninterrupted run."""
    return run(folder)


@pytest.mark.parametrize("step", [3, 5, 6, 11])
def test_resumed_run_equals_an_uninterrupted_one(tmp_path, straight, step):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", fail_at=step)
    weights, losses, _ = run(tmp_path / "cut")
    assert equal(weights, straight[0])
    assert losses == straight[1]


def test_same_seed_same_run(tmp_path, straight):
    assert equal(run(tmp_path / "again")[0], straight[0])
    other = run(tmp_path / "other", dataclasses.replace(OPTIONS, seed=8))
    assert not equal(other[0], straight[0])


def test_resume_ignores_the_weights_of_the_new_stage(tmp_path, straight):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, fail_at=7)
    stage = Line()
    nn.init.ones_(stage.net[0].weight)
    train(stage, OPTIONS, tmp_path, lambda line: None)
    assert equal(stage.state_dict(), straight[0])


def test_finished_run_stays_as_it_is(folder, straight):
    again = run(folder, fail_at=0)
    assert equal(again[0], straight[0]) and again[1] == straight[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 8}, "another seed"),
        ({"steps": 11}, "another steps"),
        ({"batch_size": 5, "learning_rate": 0.1}, "another batch_size and learning_rate"),
    ],
)
def test_changed_options_are_refused(folder, straight, change, message):
    with pytest.raises(ValueError, match=f"state.pt was trained with {message}: use the same, or remove it"):
        run(folder, dataclasses.replace(OPTIONS, **change))


def test_more_steps_prolong_a_run(tmp_path, straight):
    run(tmp_path)
    longer, history = run(tmp_path, dataclasses.replace(OPTIONS, steps=20))[:2]
    assert [row["step"] for row in history] == [*(row["step"] for row in straight[1]), 16, 20]
    assert not equal(longer, straight[0])


def test_an_option_that_the_file_does_not_know_had_its_default(folder, straight, tmp_path):
    saved = torch.load(folder / "line" / "state.pt", weights_only=True)
    del saved["options"]["clip"]
    (tmp_path / "line").mkdir()
    torch.save(saved, tmp_path / "line" / "state.pt")
    assert equal(run_again(tmp_path), straight[0])
    with pytest.raises(ValueError, match="another clip"):
        run_again(tmp_path, dataclasses.replace(OPTIONS, clip=2.0))


def run_again(out, options=OPTIONS):
    stage = Line()
    train(stage, options, out, lambda line: None)
    return stage.state_dict()


def test_saving_before_the_first_line_of_the_log(tmp_path):
    options = dataclasses.replace(OPTIONS, save_every=2, log_every=100)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, options, fail_at=3)
    assert [row["step"] for row in run(tmp_path, options)[1]] == [12]


def test_it_learns(tmp_path):
    _, losses, _ = run(tmp_path, dataclasses.replace(OPTIONS, steps=150, save_every=150, log_every=30))
    assert losses[-1]["loss"] < 0.2 * losses[0]["loss"]


def test_log_holds_means(straight):
    _, losses, _ = straight
    assert [row["step"] for row in losses] == [4, 8, 12]
    assert all(row["twice"] == pytest.approx(2 * row["loss"]) for row in losses)


def test_loss_curve_is_an_image(folder, straight):
    with Image.open(folder / "line" / "loss.png") as image:
        assert image.width > 300 and len(image.convert("L").getcolors(256)) > 2


def test_no_partial_file_is_left(folder, straight):
    assert {p.name for p in (folder / "line").iterdir()} == {"state.pt", "loss.json", "loss.png", "tensorboard"}


def test_record(straight):
    weights, losses, record = straight
    assert (record["stage"], record["options"]) == ("line", dataclasses.asdict(OPTIONS))
    assert (record["final"], record["torch"]) == (losses[-1], torch.__version__)
    assert record["precision"] == "no" and record["minutes"] >= 0 and "1 process" in record["machine"]
    json.dumps(record)


def test_result_is_the_average(folder, straight):
    saved = torch.load(folder / "line" / "state.pt", weights_only=True)
    assert saved["step"] == 12
    for name, averaged in saved["averaged"].items():
        assert torch.equal(straight[0][name], averaged)
        assert not torch.equal(saved["trained"][name], averaged)


def test_weights_are_interpolated_with_the_initial_ones(tmp_path, straight):
    initial, learnt = Line().state_dict(), straight[0]
    kept, _, record = run(tmp_path, dataclasses.replace(OPTIONS, weight_interpolation=0.25))
    for name in learnt:
        torch.testing.assert_close(kept[name], 0.75 * learnt[name] + 0.25 * initial[name])
    assert record["options"]["weight_interpolation"] == 0.25 and not equal(kept, learnt)


def test_frozen_parameters_stay(straight):
    assert equal({"weight": straight[0]["fixed.weight"]}, Line().fixed.state_dict())


def test_progress_is_reported(tmp_path):
    lines = []
    train(Line(), OPTIONS, tmp_path, lines.append)
    assert [line.split("  ")[0] for line in lines] == ["line 4/12", "line 8/12", "line 12/12"]
    assert all(re.search(r"  loss \d+\.\d+  twice \d+\.\d+  ", line) for line in lines)
    assert lines[-1].endswith(" 0.0 left")


def test_a_loss_that_is_not_a_number_ends_the_run(tmp_path):
    with pytest.raises(FloatingPointError, match="The loss of stage line is nan at step 6: lower the learning rate"):
        run(tmp_path, nan_at=6)
    assert torch.load(tmp_path / "line" / "state.pt", weights_only=True)["step"] == 5


def test_a_stage_without_data_or_loss(tmp_path):
    class Empty(Stage):
        name = "empty"

    with pytest.raises(TypeError, match="Empty has no data"):
        Empty().batch(0, 1, 0)
    with pytest.raises(TypeError, match="Empty has no loss"):
        Empty()(None, torch.Generator())


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_weight_interpolation_out_of_range(share):
    with pytest.raises(ValueError, match=f"weight interpolation of {share} is not possible: choose 0 to 1"):
        dataclasses.replace(OPTIONS, weight_interpolation=share)
