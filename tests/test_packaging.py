"""What is written down about the pack for installers and for the registry."""

import os
import re
import subprocess

import pytest
import yaml
from distribution import REPOSITORY, distributed_files

tomllib = pytest.importorskip("tomllib", reason="Python 3.11 has what reads pyproject.toml")
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
TORCH = ("torch", "torchvision", "torchaudio", "numpy")


@pytest.fixture(scope="module")
def distributed():
    files = distributed_files()
    if files is None:
        pytest.skip("not a git checkout")
    return files


def test_requirements_are_the_dependencies():
    # ComfyUI's Manager reads requirements.txt line by line, pip reads pyproject.toml.
    lines = (REPOSITORY / "requirements.txt").read_text().split("\n")
    dependencies = PROJECT["project"]["dependencies"]
    assert [line for line in lines if line] == dependencies
    names = [re.match(r"[\w-]+", line)[0] for line in dependencies]
    assert not set(names) & set(TORCH), "these would replace the user's build"
    assert all(re.fullmatch(r"[\w-]+>=[\d.]+", line) for line in dependencies), "floors, no pins"


def test_distribution_has_what_the_pack_needs_and_nothing_else(distributed):
    top = {name.partition("/")[0] for name in distributed}
    assert top == {
        "CHANGELOG.md",
        "LICENSE",
        "README.md",
        "__init__.py",
        "codi_backend",
        "locales",
        "nodes",
        "pyproject.toml",
        "requirements.txt",
        "subgraphs",
        "workflows",
    }
    presets = PROJECT["tool"]["setuptools"]["package-data"]["codi_backend"]
    mini, vd_mini = "presets/mini_weights/*.safetensors", "presets/vd_mini_weights/*.safetensors"
    files = ["presets/*.json", "presets/mini_coupler.safetensors"]
    assert presets == [*files, mini, "presets/emoji_weights/*", vd_mini]
    assert "codi_backend/presets/emoji_weights/ATTRIBUTIONS.md" in distributed
    assert "codi_backend/presets/emoji_cpu.json" in distributed
    for folder in ("presets/mini_weights", "presets/emoji_weights", "presets/vd_mini_weights"):
        assert any(name.startswith(f"codi_backend/{folder}/") for name in distributed)


def test_registry_pictures():
    from PIL import Image

    comfy = PROJECT["tool"]["comfy"]
    raw = PROJECT["project"]["urls"]["Repository"].replace("github.com", "raw.githubusercontent.com") + "/main/"
    for key, size in (("Icon", (400, 400)), ("Banner", (1260, 540))):  # the registry shows a square, and 21 : 9
        picture = REPOSITORY / comfy[key].removeprefix(raw)
        assert Image.open(picture).size == size and picture.stat().st_size < 100_000


def test_registry_entry():
    comfy = PROJECT["tool"]["comfy"]
    assert re.fullmatch(r"[a-z][a-z0-9-]*", PROJECT["project"]["name"]) and "comfyui" not in PROJECT["project"]["name"]
    assert comfy["PublisherId"] and comfy["DisplayName"]
    known = {"NVIDIA CUDA", "AMD ROCm", "Intel Arc", "Apple Metal"}  # an unknown one would void all classifiers
    devices = [c for c in PROJECT["project"]["classifiers"] if c.startswith("Environment ::")]
    assert {c.removeprefix("Environment :: GPU :: ") for c in devices} <= known


def jobs(workflow: str) -> dict:
    return yaml.safe_load((REPOSITORY / ".github" / "workflows" / workflow).read_text())["jobs"]


def test_oldest_comfyui_is_the_same_everywhere():
    oldest = PROJECT["tool"]["comfy"]["requires-comfyui"].removeprefix(">=")
    assert re.fullmatch(r"[\d.]+", oldest)
    first, tested, latest = jobs("test.yml")["comfyui"]["strategy"]["matrix"]["comfyui"]
    assert first == f"v{oldest}" and latest == "master"
    checks = " ".join(step.get("run", "") for step in jobs("test.yml")["imports"]["steps"])
    assert f"--target {first}" in checks and f"--target {tested}" in checks
    for document in ("README.md", "CHANGELOG.md", "docs/hosts.md"):
        found = re.findall(r"ComfyUI ([\d.]+\d) (?:or|and) newer", (REPOSITORY / document).read_text())
        assert found == [oldest], document
    assert f"| {tested.removeprefix('v')} |" in (REPOSITORY / "docs" / "hosts.md").read_text()


@pytest.fixture
def take_changes(tmp_path):
    """Runs the step of the publish workflow that takes a version's part of the changelog."""
    steps = jobs("publish.yml")["publish"]["steps"]
    (script,) = [step["run"] for step in steps if "changelog" in step.get("name", "").lower()]

    def take(tag: str) -> tuple[int, str]:
        changes = tmp_path / "changes.md"
        environment = os.environ | {"TAG": tag, "CHANGES": str(changes)}
        done = subprocess.run(["bash", "-e", "-c", script], cwd=REPOSITORY, env=environment, capture_output=True)
        return done.returncode, changes.read_text() if changes.exists() else ""

    return take


def test_changelog_describes_this_version(take_changes):
    code, changes = take_changes(f"v{PROJECT['project']['version']}")
    assert code == 0 and "### Added" in changes and "## [" not in changes
    assert take_changes("v99.0.0")[0] != 0


def test_version_is_the_same_everywhere():
    source = (REPOSITORY / "codi_backend" / "__init__.py").read_text()
    assert f'__version__ = "{PROJECT["project"]["version"]}"' in source
