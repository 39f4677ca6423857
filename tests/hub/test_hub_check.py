"""``dp-hub check NAME``: pulled first, then checked where it lies in the cache."""

import sys
from pathlib import Path

from dp_hub.hub import push

sys.path.append(str(Path(__file__).resolve().parents[1] / "dataset"))
from checks_helpers import healthy_episodes, write_episodes


def test_a_name_is_pulled_and_its_links_into_the_cache_are_no_fault(hub, run_client, tmp_path):
    root = write_episodes(tmp_path / "ds", healthy_episodes())
    pushed = push(root, "me/ds", license="mit")
    result = run_client("check", "me/ds")
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"me/ds@{pushed.sha}" in result.stderr
    assert "verdict: pass" in result.stdout
    assert "PORT-002" not in result.stdout
    missing = run_client("check", "me/nothing")
    assert missing.returncode == 1
    assert "Traceback" not in missing.stderr
