"""Looking at versions on a Hub: names with and without a revision."""

import json

import numpy as np

from dp_hub.dataset.features import plan_columns
from dp_hub.dataset.writer import DatasetWriter
from dp_hub.hub import push
from dp_hub.replay.episode import Episode


def write(target, lengths):
    rng = np.random.default_rng(0)
    made = [Episode({"action": rng.normal(size=(n, 2)).astype(np.float32)}, "t") for n in lengths]
    with DatasetWriter(target, plan_columns(made[0].data), fps=10) as writer:
        for episode in made:
            writer.add_episode(episode)
        writer.finish()
    return target


def test_versions_of_a_name_are_shown_and_compared(hub, run_client, tmp_path):
    one = push(write(tmp_path / "one", [4, 5]), "me/a", license="mit")
    two = push(write(tmp_path / "two", [4, 5, 6]), "me/a")
    done = run_client("info", "me/a")
    assert done.returncode == 0, done.stderr
    assert f"version      data-v2, commit {two.sha}" in done.stdout
    assert "licence      mit" in done.stdout
    first = json.loads(run_client("info", "me/a@data-v1", "--json").stdout)
    assert (first["tag"], first["commit"], first["n_episodes"]) == ("data-v1", one.sha, 2)
    done = run_client("diff", "me/a@data-v1", "me/a@data-v2")
    assert done.returncode == 1, done.stderr
    assert "A  me/a@data-v1  2 episodes, 9 frames" in done.stdout
    assert "  + added 2" in done.stdout
    assert run_client("diff", "me/a", str(tmp_path / "two")).returncode == 0
    missing = run_client("diff", "me/a@data-v1", "me/a@data-v9")
    assert missing.returncode == 2
    assert "me/a has no revision data-v9" in missing.stderr
