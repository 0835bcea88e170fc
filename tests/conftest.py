"""The tiny model, in memory and as a file; torchaudio hidden; how many examples property tests try."""

import os
import sys
from importlib.util import find_spec

import pytest
from hypothesis import HealthCheck, settings

# Processes that share the cores between them would wait for each other's threads. Before torch is imported.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Property tests (marker `property`) try few examples in the normal run, the same ones every time, and many with `-m
# slow`. Their time depends on the machine, so there is no deadline.
_COMMON = {"deadline": None, "suppress_health_check": list(HealthCheck)}
settings.register_profile("quick", max_examples=25, derandomize=True, database=None, **_COMMON)
settings.register_profile("slow", max_examples=int(os.environ.get("CODI_EXAMPLES", 10_000)), **_COMMON)


def _slow(config: pytest.Config) -> bool:
    expression = config.getoption("markexpr", "")
    return "slow" in expression and "not slow" not in expression


def pytest_configure(config):
    settings.load_profile("slow" if _slow(config) else "quick")


@pytest.hookimpl(tryfirst=True)
def pytest_warning_recorded(warning_message):
    """ComfyUI names a pack's modules by their paths, and xdist's other processes cannot import those."""
    if "/" in type(warning_message.message).__module__:
        warning_message.message = UserWarning(str(warning_message.message))
        warning_message.category = UserWarning


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Property tests belong to the normal run and, with more examples, to the slow one."""
    if _slow(config):
        for item in items:
            if item.get_closest_marker("property"):
                item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def codi():
    """A tiny model with random weights. Tests that change it build their own."""
    from tiny import build

    return build()


@pytest.fixture(scope="session")
def checkpoint(codi, tmp_path_factory):
    """The tiny model as one file."""
    from tiny import save

    return save(tmp_path_factory.mktemp("tiny") / "tiny.safetensors", codi)


def _hide_torchaudio(patch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchaudio"] + ["torchaudio"]:
        patch.setitem(sys.modules, name, None)


@pytest.fixture
def without_torchaudio(monkeypatch):
    """As if torchaudio were not installed."""
    _hide_torchaudio(monkeypatch)


@pytest.fixture(scope="module", params=["torchaudio", "torch"] if find_spec("torchaudio") else ["torch"])
def audio_library(request):
    """Runs a module's tests by torchaudio, where it is installed, and by torch alone."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "torch":
            _hide_torchaudio(patch)
        yield request.param
