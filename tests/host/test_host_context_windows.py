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


def test_each_window_of_audio_is_as_if_sampled_alone(windowed, denoise, tiny):
    noise = noise_of(1, 8, 32, 8)
    result = denoise(windowed(2, length=16), noise)
    for rows in (slice(0, 16), slice(16, 32)):
        torch.testing.assert_close(result[:, :, rows], denoise(tiny[0], noise[:, :, rows]), atol=1e-3, rtol=1e-3)


@pytest.fixture
def denoise_joint(host, prompts):
    """Denoise streams, given as noise by modality; held ones are given as they are."""

    def call(model, noise, held=(), conditioning=prompts):
        import comfy.sample
        from comfy.nested_tensor import NestedTensor

        zeros = [z if name in held else torch.zeros_like(z) for name, z in noise.items()]
        masks = [torch.full((1, 1, *z.shape[2:]), float(name not in held)) for name, z in noise.items()]
        with torch.inference_mode():
            result = comfy.sample.sample(
                model,
                NestedTensor(list(noise.values())),
                2,
                2.0,
                "euler",
                "normal",
                *conditioning,
                NestedTensor(zeros),
                seed=0,
                noise_mask=NestedTensor(masks) if held else None,
            )
        return dict(zip(noise, result.unbind()))

    return call


SHAPES = {"image": (1, 4, 8, 8), "video": (1, 4, 8, 8, 8), "audio": (1, 8, 16, 8), "text": (1, 24, 1, 1)}
# A frame of the tiny model lasts 0.16 s, a row of its audio 0.08 s.
PARTS = [{"video": slice(0, 4), "audio": slice(0, 8)}, {"video": slice(4, 8), "audio": slice(8, 16)}]


def joint_noise(*names, **others):
    shapes = SHAPES | others
    return {name: noise_of(*shapes[name]) + i for i, name in enumerate(shapes) if name in names}


def part_of(streams, part):
    return {name: z[:, :, part[name]] if name in part else z for name, z in streams.items()}


@pytest.mark.parametrize("held", [(), ("audio",), ("video",)])
def test_each_window_of_joint_streams_is_as_if_sampled_alone(windowed, denoise_joint, tiny, held):
    noise = joint_noise("video", "audio")
    result = denoise_joint(windowed(2), noise, held)
    for part in PARTS:
        alone = denoise_joint(tiny[0], part_of(noise, part), held)
        for name, z in part_of(result, part).items():
            torch.testing.assert_close(z, alone[name], atol=1e-3, rtol=1e-3)
    for name in held:
        assert torch.equal(result[name], noise[name])
    whole = denoise_joint(tiny[0], noise, held)
    assert any(not torch.allclose(result[name], z, atol=1e-2) for name, z in whole.items())


def test_streams_without_time_are_in_every_window(host, windowed, denoise_joint, tiny):
    """Unaligned, they are denoised as without windows."""
    aligned = host.module("nodes.runtime.alignment_options").with_settings
    noise = joint_noise(*SHAPES)
    result = denoise_joint(aligned(windowed(2), alignment="none"), noise)
    whole = denoise_joint(aligned(tiny[0], alignment="none"), noise)
    for name in ("image", "text"):
        torch.testing.assert_close(result[name], whole[name], atol=1e-3, rtol=1e-3)
    for part in PARTS:
        alone = denoise_joint(aligned(tiny[0], alignment="none"), part_of(noise, part))
        for name in part:
            torch.testing.assert_close(result[name][:, :, part[name]], alone[name], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("schedule", ["standard_static", "standard_uniform", "looped_uniform", "batched"])
@pytest.mark.parametrize("fuse", ["pyramid", "relative", "flat", "overlap-linear"])
def test_every_schedule_and_blend(windowed, denoise_joint, schedule, fuse):
    noise = joint_noise(*SHAPES, video=(1, 4, 11, 8, 8), audio=(1, 8, 22, 8))
    options = {"context_schedule": schedule, "fuse_method": fuse, "closed_loop": True, "freenoise": True}
    result = denoise_joint(windowed(2, overlap=2, causal_window_fix=True, **options), noise)
    assert {name: z.shape for name, z in result.items()} == {name: z.shape for name, z in noise.items()}
    assert all(z.isfinite().all() for z in result.values())


def test_freenoise_shuffles_what_has_time(host, windowed, denoise_joint):
    noise = joint_noise(*SHAPES)
    aligned = host.module("nodes.runtime.alignment_options").with_settings
    plain, shuffled = (
        denoise_joint(aligned(windowed(2, freenoise=free), alignment="none"), noise) for free in (False, True)
    )
    for name, z in plain.items():
        assert torch.allclose(z, shuffled[name], atol=1e-3) == (name in ("image", "text")), name


@pytest.mark.parametrize("names", [("video", "audio"), ("image", "video", "audio", "text")])
def test_several_results_in_windows(windowed, denoise_joint, names):
    noise = joint_noise(*names)
    both = denoise_joint(windowed(2), {name: torch.cat([z, -z]) for name, z in noise.items()})
    for name, z in denoise_joint(windowed(2), noise).items():
        torch.testing.assert_close(both[name][:1], z, atol=1e-3, rtol=1e-3)


def test_a_batch_of_joint_streams(windowed, denoise_joint, tiny):
    noise = {name: torch.cat([z, -z, z + 1]) for name, z in joint_noise("video", "audio").items()}
    whole = denoise_joint(tiny[0], noise)
    for name, z in denoise_joint(windowed(0, length=2), noise).items():
        torch.testing.assert_close(z, whole[name], atol=1e-3, rtol=1e-3)


def test_a_stream_as_long_as_prompts_are_wide(windowed, denoise, prompts):
    rows = prompts[0][0][0].shape[-1]
    assert denoise(windowed(2, length=16), noise_of(1, 8, rows, 8)).isfinite().all()


def test_videos_longer_than_a_network_takes(windowed, sample, empty):
    latent = empty(image=False, video=True, frames=130)
    with pytest.raises(
        ValueError, match="^latent_image: the video latent has 130 frames; give it 1 to 120, or connect"
    ):
        sample(latent, steps=1)
    video, audio = sample(latent, model=windowed(2, length=16, overlap=4), steps=1)
    assert video.shape[2] == 130 and audio.shape[2] == 260
    with pytest.raises(ValueError, match="^model: a context window of 125 frames is too long; set at most 120"):
        sample(latent, model=windowed(2, length=125), steps=1)


def test_all_streams_are_cut_at_equal_times_where_lengths_are_uneven(host):
    """10 s with the built-in model: 63 frames of 0.16 s, and 128 rows of 0.08 s, of which its network takes fours."""
    map_window = host.module("nodes.runtime.context_windows").map_window
    config = host.module("codi_backend.presets.mini").CONFIG
    shapes = [(1, 4, 63, 8, 8), (1, 4, 8, 8), (1, 8, 128, 8), (1, 64, 1, 1)]
    windows = [map_window(config, frames, shapes, 2) for frames in ([*range(16, 32)], [*range(48, 63)], [62, 0, 1])]
    assert [window[2] for window in windows] == [[*range(32, 64)], [*range(96, 128)], [124, 125, 126, 127, 0, 1, 2, 3]]
    assert all(window[1] == [*range(8)] and window[3] == [0] for window in windows)


@pytest.mark.parametrize("overlap", [0, 3, 9, 20])
def test_windows_of_the_built_in_model_have_whole_units(host, run_node, overlap):
    """Odd lengths are rounded up to whole units of the audio, two frames."""
    from comfy_extras.nodes_context_windows import ContextWindowsManualNode

    model, encoders, *_ = run_node("CoDiLoadModel", checkpoint="mini (built in)")
    seen = []
    with torch.inference_mode():
        chosen = {"image": True, "video": True, "audio": True, "text": False}
        sizes = {"width": 0, "height": 0, "frames": 0, "seconds": 6.0, "batch_size": 1}
        (latent,) = run_node("CoDiEmptyLatent", model=model, **chosen, **sizes)
        prompts = run_node("CoDiPromptText", prompt_encoders=encoders, text="three red stars")
        model = ContextWindowsManualNode.execute(
            model, 15, overlap, "standard_static", 1, False, "pyramid", 2, False
        ).args[0]

        def watch(executor, x, *arguments, **named):
            seen.append([tuple(z.shape[2:]) for z in x])
            return executor(x, *arguments, **named)

        from comfy.patcher_extension import WrappersMP

        model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "test", watch)
        (result,) = host.node("KSampler")().sample(model, 0, 1, 1.0, "euler", "normal", *prompts, latent)
    image, video, audio = result["samples"].unbind()
    assert video.shape[2] == 38 and audio.shape[2] == 76 and video.isfinite().all() and audio.isfinite().all()
    assert {tuple(shapes) for shapes in seen} == {((16, 8, 8), (8, 8), (32, 8))}


def test_memory_is_asked_for_one_window(windowed, denoise_joint, tiny):
    model = tiny[0].model
    asked = {}
    for frames in (4, 40):
        noise = joint_noise(*SHAPES, video=(1, 4, frames, 8, 8), audio=(1, 8, 2 * frames, 8))
        denoise_joint(windowed(2), noise)
        elements = sum(z.numel() for z in noise.values())
        asked[frames] = model.memory_required([1, 1, elements]) - elements * 10 * 4
    assert asked[4] == asked[40]


def test_candidates_are_compared_in_windows(windowed, run_node, empty, prompts, tiny, monkeypatch):
    diffuser, seen = tiny[0].model.diffusion_model.diffuser, []
    encode = diffuser.clean_environment
    monkeypatch.setattr(
        diffuser, "clean_environment", lambda z: (seen.append({n: x.shape[2] for n, x in z.items()}), encode(z))[1]
    )
    settings = {"seed": 0, "steps": 4, "cfg": 2.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
    (result,) = run_node(
        "CoDiSampler",
        model=windowed(2, overlap=2),
        positive=prompts[0],
        negative=prompts[1],
        latent_image=empty(image=False, video=True, frames=8),
        mode="paper",
        strength=1.0,
        candidates=3,
        **settings,
    )
    assert all(z.isfinite().all() and len(z) == 1 for z in result["samples"].unbind())
    assert seen == [{"video": 4, "audio": 8}] * 6  # three windows at each of two levels


def test_conditions_are_divided_among_windows(host, windowed, denoise_joint, run_node, tiny, prompts):
    """The core's own way to change a prompt: combined prompts, of which each window takes one."""
    other = run_node("CoDiPromptText", prompt_encoders=tiny[1], text="one blue star")[0]
    noise = joint_noise("video", "audio")
    both = windowed(2, split_conds_to_windows=True)
    result = denoise_joint(both, noise, conditioning=(prompts[0] + other, prompts[1]))
    for part, positive in zip(PARTS, (prompts[0], other)):
        alone = denoise_joint(tiny[0], part_of(noise, part), conditioning=(positive, prompts[1]))
        for name, z in part_of(result, part).items():
            torch.testing.assert_close(z, alone[name], atol=1e-3, rtol=1e-3)


@pytest.fixture
def scheduled(run_node, tiny, prompts):
    """A conditioning with prompts by time, and its prompts."""
    given = {"prompt_1": prompts[0]}
    given["prompt_2"] = run_node("CoDiPromptText", prompt_encoders=tiny[1], text="one blue star")[0]

    def call(starts):
        return run_node("CoDiPromptSchedule", prompts=given, starts=starts)[0], list(given.values())

    return call


def test_each_window_has_the_prompt_of_its_time(windowed, denoise_joint, tiny, scheduled, prompts):
    schedule, positives = scheduled("0, 0.64")
    noise = joint_noise("video", "audio")
    result = denoise_joint(windowed(2), noise, conditioning=(schedule, prompts[1]))
    for part, positive in zip(PARTS, positives):
        alone = denoise_joint(tiny[0], part_of(noise, part), conditioning=(positive, prompts[1]))
        for name, z in part_of(result, part).items():
            torch.testing.assert_close(z, alone[name], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("windows", [False, True])
def test_a_window_across_a_change_has_a_mixture(windowed, denoise_joint, tiny, run_node, scheduled, prompts, windows):
    """The prompt changes after 6 of 8 frames; the second window has as much of both."""
    schedule, positives = scheduled("0, 0.96")
    mixed = run_node(
        "CoDiInterpolate",
        prompts=dict(zip(("prompt_1", "prompt_2"), positives)),
        weights={"weight_1": 1.0 if windows else 3.0, "weight_2": 1.0},
        method="linear",
    )[0]
    noise = joint_noise("video", "audio")
    model = windowed(2) if windows else tiny[0]
    result = denoise_joint(model, noise, conditioning=(schedule, prompts[1]))
    part = PARTS[1] if windows else {}
    alone = denoise_joint(tiny[0], part_of(noise, part), conditioning=(mixed, prompts[1]))
    for name, z in part_of(result, part).items():
        torch.testing.assert_close(z, alone[name], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("starts", "message"),
    [
        ("0", "^starts: there are 1 for 2 prompts; give each prompt one.$"),
        ("0, soon", "^starts: 'soon' is no number of seconds; write them as in 0, 5, 7.5.$"),
        ("0, -1", "^starts: -1 is out of range"),
        ("1, 2", "^starts: the first one starts at 1 s; give one that starts at 0.$"),
        ("0, 0", "^starts: two start at 0 s"),
        ("2, 0", "^starts: they are not in order of time"),
    ],
)
def test_bad_starts(scheduled, starts, message):
    with pytest.raises(ValueError, match=message):
        scheduled(starts)


def test_prompts_by_time_where_they_do_not_fit(run_node, sample, empty, scheduled, prompts, versatile):
    schedule, positives = scheduled("0, 0.5")
    with pytest.raises(ValueError, match="^positive: prompts by time need a video or audio stream"):
        sample(empty(audio=False), conditioning=(schedule, prompts[1]))
    changed = [[schedule[0][0] * 2, schedule[0][1]]]
    with pytest.raises(ValueError, match="^positive: another node has changed the prompts of CoDi Prompt Schedule"):
        sample(empty(), conditioning=(changed, prompts[1]))
    both = {"prompt_1": schedule, "prompt_2": prompts[0]}
    with pytest.raises(ValueError, match="^prompt_1: this holds prompts by time; connect the prompts before CoDi"):
        run_node("CoDiInterpolate", prompts=both, method="linear")
    context = run_node("CoDiContextText", prompt_encoders=[versatile[1]], text=["three red stars"])[0]
    with pytest.raises(ValueError, match="^prompt_1: this is a context of a Versatile Diffusion"):
        run_node("CoDiPromptSchedule", prompts={"prompt_1": context, "prompt_2": context}, starts="0, 1")


@pytest.mark.parametrize(
    ("streams", "dims"),
    [
        ({"audio": False}, (1, 2, 3)),
        ({"image": False}, (1, 3)),
        ({"image": False, "audio": False, "video": True}, (1, 3, 4)),
        ({"video": True}, (1, 3)),
        ({"audio": False, "text": True}, (1, 2)),
    ],
)
def test_axes_that_belong_together(windowed, sample, empty, streams, dims):
    for dim in dims:
        with pytest.raises(ValueError, match=f"^model: context windows over dim {dim} do not work with the .* stream"):
            sample(empty(**streams), model=windowed(dim))


def test_what_windows_cannot_do(windowed, denoise_joint):
    noise = joint_noise("video", "audio")
    with pytest.raises(
        ValueError, match="^model: context windows cannot leave out audio between steps; set context_st"
    ):
        denoise_joint(windowed(2, context_schedule="standard_uniform", context_stride=2), noise)
    with pytest.raises(
        ValueError, match="^model: latent_retain_index_list names 4, which is outside of a window; give"
    ):
        denoise_joint(windowed(2, latent_retain_index_list="0, 4"), noise)
    uneven = joint_noise("video", "audio", audio=(1, 8, 32, 8))
    with pytest.raises(
        ValueError, match=r"^latent_image: context windows need streams that last equally long \(video 1"
    ):
        denoise_joint(windowed(2), uneven)
