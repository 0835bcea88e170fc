"""Ready-made inputs."""

import torch

from codi_backend.evaluation.judges import judge_audio, judge_image, judge_text, judge_video

SCENE = {"colour": "blue", "shape": "heart", "count": 3, "tempo": "fast", "start": 0.25, "seed": 7}


def test_all_four_show_the_same_scene(run_node):
    image, video, audio, text = run_node("CoDiExampleScene", **SCENE)
    clip = video.get_components()
    assert image.shape == (1, 64, 64, 3) and clip.images.shape == (16, 64, 64, 3)
    assert audio["sample_rate"] == 16000 and audio["waveform"].shape == (1, 1, 40960)
    assert float(clip.frame_rate) == 6.25 and torch.equal(clip.audio["waveform"], audio["waveform"])
    picture = judge_image(image[0].movedim(-1, 0))
    seen, heard, said = judge_video(clip.images.movedim(-1, 0)), judge_audio(audio["waveform"][0, 0]), judge_text(text)
    for judged in (picture, seen, heard, said):
        assert (judged.colour, judged.shape, judged.count) == ("blue", "heart", 3)
    assert seen.tempo == heard.tempo == said.tempo == "fast"
    assert abs(heard.onsets[0] - 0.25) < 0.02


def test_the_seed_moves_the_objects(run_node):
    first, again, other = (run_node("CoDiExampleScene", **SCENE | {"seed": s})[0] for s in (7, 7, 8))
    assert torch.equal(first, again) and not torch.equal(first, other)
