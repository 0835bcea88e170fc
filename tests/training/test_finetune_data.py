"""Training on a user's data: what is left out, crops, and whether a run goes on with the data it was begun with."""

import shutil
from dataclasses import replace

import own_data
import pytest
import tiny
import torch
from safetensors import safe_open

from codi_backend.checkpoints.native import read_parts
from codi_backend.cli.main import main
from codi_backend.data.broken import Broken
from codi_backend.data.pairs import Pairs
from codi_backend.media.write import save_wav
from codi_backend.training import finetune as finetune_module
from codi_backend.training import loop
from codi_backend.training.finetune import finetune
from codi_backend.training.identity import data_digest, weights_digest
from codi_backend.training.loop import Options
from codi_backend.training.pair_latents import PairLatents

OPTIONS = Options(steps=2, batch_size=2, warmup=0, learning_rate=0.01, save_every=1)
RUN = {"diffuser_audio": "refine_audio", "autoencoder_audio": "autoencoder_audio", "autoencoder_image":
       "autoencoder_image"}  # fmt: skip


def ignore(line):
    pass


@pytest.fixture(scope="module")
def codi():
    return tiny.build()


@pytest.fixture(scope="module")
def checkpoint(codi, tmp_path_factory):
    return tiny.save(tmp_path_factory.mktemp("tiny") / "tiny.safetensors", codi)


@pytest.fixture
def data(tmp_path):
    return own_data.make(tmp_path / "data", 3)


def noise(path, seconds, seed):
    """Audio no two crops of which are alike."""
    save_wav(path, torch.rand(1, round(seconds * 8000), generator=torch.Generator().manual_seed(seed)) - 0.5, 8000)


def weights(path):
    return {k: v.clone() for part in read_parts(path).parts.values() for k, v in part.items()}


@pytest.mark.parametrize("stage", ["diffuser_audio", "autoencoder_image"])
def test_broken_entries_are_left_out(checkpoint, data, tmp_path, stage, capsys):
    command = ["train", stage, "--data", str(data), "--init", str(checkpoint), "--out", str(tmp_path / "out")]
    command += ["--steps", "1", "--batch-size", "2"]
    good = tmp_path / "good"
    shutil.copytree(data, good)
    file = "item1.wav" if stage == "diffuser_audio" else "item1.png"
    (good / file).unlink()
    (data / file).write_bytes(b"broken")
    assert main(command) == 1
    error = capsys.readouterr().err
    assert f"{file} cannot be read" in error and "--skip-broken" in error
    assert main([*command, "--skip-broken"]) == 0
    report = tmp_path / "out" / RUN[stage] / "left_out.txt"
    assert f"1 entries cannot be used and are left out; {report} lists them." in capsys.readouterr().out
    (line,) = report.read_text().splitlines()
    assert line.startswith(f"item1: {data / file} cannot be read")
    (trained,) = (tmp_path / "out").glob("tiny_*.safetensors")
    record = read_parts(trained).training[-1]
    assert (record["entries"], record["left_out"]) == (2, 1)
    assert main([*command, "--skip-broken"]) == 0 and report.read_text().startswith("item1: ")
    # the same as without the entry
    options = replace(finetune_module.OPTIONS, steps=1, batch_size=2)
    (other,) = finetune(stage, good, tmp_path / "other", checkpoint, (), options, ignore)
    assert not tiny.changed(weights(trained), weights(other))
    assert main(command) == 1 and f"{file} cannot be read" in capsys.readouterr().err


def test_skipping_needs_data(capsys):
    assert main(["train", "diffuser_image", "--skip-broken"]) == 1
    assert "give it with --data" in capsys.readouterr().err


def begin(stage, data, out, checkpoint, **others):
    return finetune(stage, data, out, checkpoint, (), replace(OPTIONS, **others), ignore)


@pytest.mark.parametrize("stage", ["diffuser_audio", "autoencoder_audio"])
def test_other_data_are_refused(checkpoint, data, tmp_path, stage):
    out = tmp_path / "out"
    (file,) = begin(stage, data, out, checkpoint)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    own_data.write_audio(data / "item1.wav", 900)
    with pytest.raises(
        ValueError, match=f"{RUN[stage]}/state.pt belongs to a run with other --data: give the same as then, or"
    ):
        begin(stage, data, out, checkpoint)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    own_data.make(data, 3)
    (data / "item1.txt").write_text("another caption")  # which an autoencoder does not see
    if stage == "autoencoder_audio":
        begin(stage, data, out, checkpoint)
        return
    with pytest.raises(ValueError, match="other --data"):
        begin(stage, data, out, checkpoint)


def test_another_checkpoint_is_refused(checkpoint, codi, data, tmp_path):
    begin("diffuser_audio", data, tmp_path / "out", checkpoint)
    other = tiny.build()
    with torch.no_grad():
        next(other.diffuser.networks["audio"].parameters()).add_(0.1)
    file = tiny.save(tmp_path / "other.safetensors", other)
    with pytest.raises(ValueError, match="belongs to a run with another --init: give"):
        begin("diffuser_audio", data, tmp_path / "out", file)
    own_data.write_audio(data / "item1.wav", 900)
    with pytest.raises(ValueError, match="belongs to a run with other --data and another --init: give"):
        begin("diffuser_audio", data, tmp_path / "out", file)
    same = tiny.save(tmp_path / "same.safetensors", codi)
    own_data.write_audio(data / "item1.wav", 300)
    begin("diffuser_audio", data, tmp_path / "out", same)


@pytest.mark.parametrize("stage", ["diffuser_audio", "autoencoder_audio"])
def test_the_same_data_elsewhere_go_on(checkpoint, data, tmp_path, stage):
    for i in range(3):
        noise(data / f"item{i}.wav", 3, i)
    (straight,) = begin(stage, data, tmp_path / "straight", checkpoint)
    out = tmp_path / "cut"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.State, "save", save_and_stop(loop.State.save))
        with pytest.raises(KeyboardInterrupt):
            begin(stage, data, out, checkpoint)
    assert torch.load(out / RUN[stage] / "state.pt", weights_only=True)["step"] == 1
    moved = tmp_path / "moved"
    shutil.copytree(data, moved, copy_function=shutil.copy)  # other times
    (again,) = begin(stage, moved, out, checkpoint)
    assert not tiny.changed(weights(straight), weights(again))


def save_and_stop(save):
    def saved(*arguments, **keywords):
        save(*arguments, **keywords)
        raise KeyboardInterrupt

    return saved


def test_a_run_of_an_older_edition_goes_on_with_a_word(checkpoint, data, tmp_path):
    begin("autoencoder_audio", data, tmp_path, checkpoint)
    path = tmp_path / "autoencoder_audio" / "state.pt"
    state = torch.load(path, weights_only=True)
    del state["identity"]
    torch.save(state, path)
    lines = []
    finetune("autoencoder_audio", data, tmp_path, checkpoint, (), OPTIONS, lines.append)
    assert any("is the run of an older edition, which did not record data and checkpoint" in line for line in lines)


@pytest.mark.parametrize("content", [b"", b"no state", None])
def test_a_damaged_state_is_refused(checkpoint, data, tmp_path, content):
    begin("autoencoder_audio", data, tmp_path, checkpoint)
    path = tmp_path / "autoencoder_audio" / "state.pt"
    path.write_bytes(path.read_bytes()[:-1000] if content is None else content)
    with pytest.raises(ValueError, match="state.pt cannot be read as the state of a run .*: remove it to start afresh"):
        begin("autoencoder_audio", data, tmp_path, checkpoint)


def test_a_run_on_shapes_and_chimes_is_another(checkpoint, data, tmp_path):
    begin("autoencoder_audio", data, tmp_path, checkpoint)
    with pytest.raises(ValueError, match="belongs to a run with other --data and another --init and another stage"):
        loop.train(stage_of("autoencoder_audio"), OPTIONS, tmp_path, ignore)


def stage_of(name):
    stage = loop.Stage()
    stage.name, stage.weight = name, torch.nn.Parameter(torch.zeros(1))
    return stage


def test_digests(codi, data, tmp_path):
    def digest():
        return data_digest(Pairs.find(data, codi.config, ("audio", "text")))

    first = digest()
    own_data.write_image(data / "item1.png", "black")  # is not asked for
    assert digest() == first
    large = data / "item1.wav"
    own_data.write_audio(large, 300, 60)
    second = digest()
    content = bytearray(large.read_bytes())
    content[len(content) // 2] ^= 1
    large.write_bytes(content)
    assert len({first, second, digest()}) == 3
    other = tiny.build()
    assert weights_digest([codi]) == weights_digest([other])
    with torch.no_grad():
        list(other.parameters())[-1].flatten()[0].add_(1e-6)
    assert weights_digest([codi]) != weights_digest([other])


def test_latents_of_what_lasts_longer(codi, data, tmp_path):
    noise(data / "item1.wav", 0.64 * 2.4, 1)
    noise(data / "item2.wav", 20, 2)
    pairs = Pairs.find(data, codi.config, ("image", "audio", "text"))
    lines = []
    latents = PairLatents.load_or_encode(tmp_path, codi, pairs, report=lines.append)
    assert len(latents) == 3
    assert lines == [
        "audio: contents that last 1.5 times as long as the model or more give 4 further crops, at most 4 an entry: 7 "
        "are encoded."
    ]
    positions = ([0], [0, 1], [0, 1 / 3, 2 / 3, 1])
    items = [pairs.read(row, position) for row in range(3) for position in positions[row]]
    images = [pairs[row]["image"] for row in range(3)]
    for name, scale, contents in (("image", 0.7, images), ("audio", 1.3, [item["audio"] for item in items])):
        expected = scale * codi.encode(name, torch.stack(contents))
        torch.testing.assert_close(latents.latents[name].rows.float(), expected, atol=4e-3, rtol=4e-3)
    together = latents.aligned(("image", "audio"))
    assert torch.equal(together["image"], latents.latents["image"].rows[[0, 1, 1, 2, 2, 2, 2]])
    assert torch.equal(together["audio"], latents.latents["audio"].rows)
    again = PairLatents.load_or_encode(tmp_path, codi, pairs, report=ignore)
    assert all(again.latents[m].places == table.places for m, table in latents.latents.items())
    assert all(torch.equal(again.latents[m].rows, table.rows) for m, table in latents.latents.items())
    drawn = {0: set(), 1: set(), 2: set()}
    for step in range(40):
        batch = latents.batch(step, 3, 5, ("audio",), empty=0)
        assert sorted(batch["captions"]) == [f"thing number {i}" for i in range(3)]
        for caption, latent in zip(batch["captions"], batch["audio"]):
            (place,) = [i for i, row in enumerate(latents.latents["audio"].rows) if torch.equal(row.float(), latent)]
            drawn[int(caption[-1])].add(place)
    assert drawn == {0: {0}, 1: {1, 2}, 2: {3, 4, 5, 6}}


def test_latents_without_broken_entries(codi, data, tmp_path):
    (data / "item1.wav").write_bytes(b"broken")
    pairs = Pairs.find(data, codi.config, ("audio", "text"))
    for _ in range(2):  # the second time they are read
        broken = Broken(skip=True)
        latents = PairLatents.load_or_encode(tmp_path, codi, pairs, report=ignore, broken=broken)
        captions = latents.batch(0, 2, 0, ("audio",), empty=0)["captions"]
        assert sorted(captions) == ["thing number 0", "thing number 2"] and len(latents.latents["audio"].rows) == 2
        assert [fault.entry for fault in broken.faults] == ["item1"]
    with safe_open(tmp_path / "pairs_audio.safetensors", "pt") as file:
        assert "item1" in file.metadata()["left_out"]
    with pytest.raises(ValueError, match="item1.wav cannot be read as audio"):
        PairLatents.load_or_encode(tmp_path, codi, pairs, report=ignore)
