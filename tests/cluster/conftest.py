"""A Ray of two CPUs that the tests of this folder share, and a tiny model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from perdure.cli.main import main
from tests.cluster.shard_files import CLASSES
from tests.tiny import classifier, lesson

Perdure = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Give a test a cache and a working folder of its own, and no cluster of anybody's."""
    monkeypatch.setenv("PERDURE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """The address of a Ray with two CPUs."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")
        patch.setenv("RAY_memory_monitor_refresh_ms", "0")  # others' memory ends no job of ours
        head = {"num_cpus": 2, "object_store_memory": 2**28, "include_dashboard": False}
        started = Cluster(initialize_head=True, head_node_args=head)
        yield started.address
        started.shutdown()


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model of four classes."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    classifier().learn(lesson(*CLASSES)).save(folder)
    return folder


@pytest.fixture
def perdure(capsys: pytest.CaptureFixture[str]) -> Perdure:
    """The command in this process: its exit code, and what it wrote."""

    def run(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(word) for word in words])
        return (code, *capsys.readouterr())

    return run
