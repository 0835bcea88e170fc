"""ComfyUI's context windows: over a video's frames or a batch they work, over joint streams they are refused."""

import pytest
import torch


@pytest.fixture
def windowed(host, tiny):
    def call(dim, length=4, overlap=0, **settings):
        from comfy_extras.nodes_context_windows import ContextWindowsManualNode

        given = {
            "context_schedule": "standard_static",
            "context_stride": 1,
            "closed_loop": False,
            "fuse_method": "flat",
            "freenoise": False,
            "causal_window_fix": False,
        }
        given |= {"context_length": length, "context_overlap": overlap, "dim": dim}
        return ContextWindowsManualNode.execute(tiny[0], **given | settings).args[0]

    return call


@pytest.fixture
def denoise(prompts):
    def call(model, noise):
        import comfy.sample

        with torch.inference_mode():
            return comfy.sample.sample(
                model, noise, 2, 2.0, "euler", "normal", prompts[0], prompts[1], torch.zeros_like(noise), seed=0
            )

    return call


def noise_of(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_each_window_of_a_video_is_as_if_sampled_alone(windowed, denoise, tiny):
    noise = noise_of(1, 4, 8, 4, 4)
    result = denoise(windowed(2), noise)
    for frames in (slice(0, 4), slice(4, 8)):
        torch.testing.assert_close(result[:, :, frames], denoise(tiny[0], noise[:, :, frames]), atol=1e-3, rtol=1e-3)
    assert not torch.allclose(result, denoise(tiny[0], noise), atol=1e-2)


def test_windows_of_a_batch_change_nothing(windowed, denoise, tiny):
    noise = noise_of(4, 4, 4, 4)
    torch.testing.assert_close(denoise(windowed(0, length=2), noise), denoise(tiny[0], noise), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("streams", [{}, {"video": True}, {"image": False, "video": True}])
@pytest.mark.parametrize("dim", [0, 2])
def test_joint_streams(windowed, sample, empty, streams, dim):
    with pytest.raises(ValueError, match="^model: context windows do not work with the joint streams .*; remove the"):
        sample(empty(**streams), model=windowed(dim))


@pytest.mark.parametrize(
    ("streams", "dims"),
    [
        ({"audio": False}, (1, 2, 3)),
        ({"image": False}, (1, 2, 3)),
        ({"image": False, "audio": False, "video": True}, (1, 3, 4)),
    ],
)
def test_axes_that_belong_together(windowed, sample, empty, streams, dims):
    for dim in dims:
        with pytest.raises(ValueError, match=f"^model: context windows over dim {dim} do not work with the .* stream"):
            sample(empty(**streams), model=windowed(dim))
