"""Small datasets written on the spot, and variants of them, for tests of info, cards and diff."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dp_hub.dataset.features import plan_columns
from dp_hub.dataset.writer import DatasetWriter
from dp_hub.replay.episode import Episode


def episodes(lengths=(7, 3, 12, 5), *, dims=2, size=None, seed=0, task="push"):
    """Episodes of random numbers and, with ``size`` (H, W), of pictures whose top left tells all.

    The pixel at (0, 0) and around it is (10 * episode, 5 * frame, 200).
    """
    rng = np.random.default_rng(seed)
    made = []
    for i, n in enumerate(lengths):
        data = {
            "action": rng.normal(size=(n, dims)).astype(np.float32),
            "state": rng.normal(size=(n, 3)).astype(np.float32),
        }
        if size is not None:
            picture = np.zeros((n, *size, 3), np.uint8)
            picture[..., 0], picture[..., 2] = 10 * i, 200
            picture[..., 1] = 5 * np.arange(n)[:, None, None]
            data["img"] = picture
        made.append(Episode(data, task=task, metadata={"seed": i}))
    return made


def write(target, made, *, images="auto", fps=10, **options):
    """Write a dataset and return its folder."""
    columns = plan_columns(made[0].data, images=images)
    with DatasetWriter(target, columns, fps=fps, threads=1, **options) as writer:
        for episode in made:
            writer.add_episode(episode)
        writer.finish()
    return target


def edit_json(path, **changes):
    """Change keys of a JSON file; a value of None removes the key."""
    values = json.loads(path.read_text())
    values.update(changes)
    path.write_text(json.dumps({k: v for k, v in values.items() if v is not None}))


def rewrite_episodes(root, change):
    """Put ``change(table)`` in the place of the only file of meta/episodes."""
    [path] = (root / "meta" / "episodes").rglob("*.parquet")
    table = pq.read_table(path)
    pq.write_table(change(table), path)


def without_hashes(root):
    """Make a dataset look as if another program had written it."""
    rewrite_episodes(root, lambda table: table.drop_columns(["sha256", "metadata"]))
    (root / "meta" / "dp_hub.json").unlink()
    return root


def with_leftover_row(root):
    """As after a kill: a row of meta/episodes beyond what meta/info.json counts."""
    rewrite_episodes(root, lambda table: pa.concat_tables([table, table.slice(0, 1)]))
    return root
