"""The cluster file: what Ray's launcher itself says of it.  No cluster is started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

FILE = Path(__file__).parents[1] / "cluster.yaml"
NEEDED = ("RAY_AUTH_MODE=token", "RAY_AUTH_TOKEN_PATH=", "RAY_health_check_period_ms=", "/ray start")


@pytest.fixture
def config() -> dict[str, Any]:
    """The file as it stands."""
    loaded: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return loaded


def test_rays_launcher_accepts_the_file(config: dict[str, Any]) -> None:
    """Prepared, so that the launcher's defaults are in, it is valid."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(config))


@pytest.mark.parametrize("commands", ["head_start_ray_commands", "worker_start_ray_commands"])
def test_every_node_starts_with_authentication_and_health_checks(config: dict[str, Any], commands: str) -> None:
    """A node that joined without a token mode would be one that anybody may command."""
    start = config[commands][-1]
    assert [name for name in NEEDED if name not in start] == []


def test_every_node_is_set_up_from_the_lock(config: dict[str, Any]) -> None:
    """The machines run the versions of `requirements.lock`."""
    assert any("make setup" in command for command in config["setup_commands"])
