"""One file of many is cut short: refused, or with --skip-bad left out, told, and the rest whole."""

import json
import shutil

import numpy as np
import pytest
from bag_files import arm_messages, write_bag
from hdf5_written import box, jpeg, write_aloha, write_minari_arrow, write_minari_hdf5
from hdf5_written import write_robomimic as write_demos
from lerobot_folders import episodes as lerobot_episodes
from lerobot_folders import write_v2
from rlds_writer import tensor, write_tfds
from test_folder_source import arrays, save_npz
from test_real_zarr_source import write_real

from dp_hub.dataset.convert import convert
from dp_hub.dataset.reader import open_dataset
from dp_hub.errors import DataError

N = 5
BAD = 2


def robomimic(root):
    for number in range(N):
        write_demos(root / f"a_{number}.hdf5", (0, 1), pictures=False, seed=number)
    return root / f"a_{BAD}.hdf5"


def aloha(root):
    for number in range(N):
        write_aloha(root / f"episode_{number}.hdf5", 4 + number, seed=number, encode=jpeg)
    return root / f"episode_{BAD}.hdf5"


def minari(root):
    def state(n, rng):
        return {"s": rng.normal(size=(n, 3))}

    space = {"type": "Dict", "subspaces": {"s": box((3,))}}
    for number in range(N):
        write_minari_hdf5(root / f"set_{number}", state, space=space, lengths=(3, 2 + number))
    return root / f"set_{BAD}/data/main_data.hdf5"


def minari_arrow(root):
    def episode(n):
        rng = np.random.default_rng(n)
        one = {"actions": rng.normal(size=(n, 2)).astype(np.float32), "rewards": np.ones(n)}
        flags = dict.fromkeys(("terminations", "truncations"), np.zeros(n, bool))
        return one | flags | {"observations": {"s": rng.normal(size=(n + 1, 3))}}

    space = {"type": "Dict", "subspaces": {"s": box((3,))}}
    write_minari_arrow(root, [episode(3 + number) for number in range(N)], space=space)
    return root / f"data/{BAD}/part-0.arrow"


def rlds(root):
    rng = np.random.default_rng(0)

    def episode(n):
        return {"steps/action": rng.normal(size=2 * n), "steps/reward": rng.normal(size=n)}

    steps = {"action": tensor("float32", 2), "reward": tensor("float32")}
    write_tfds(root, steps, [[episode(3 + k), episode(4 + k)] for k in range(N)])
    return root / f"made-train.tfrecord-{BAD:05d}-of-{N:05d}"


def mcap(root):
    for number in range(N):
        write_bag(root / f"take_{number}", "mcap", arm_messages(60, seed=number)[0])
    return next((root / f"take_{BAD}").glob("*.mcap"))


def folder(root):
    for number in range(N):
        save_npz(root / f"take_{number}", arrays(number))
    return root / f"take_{BAD}/data.npz"


def real_zarr(root):
    write_real(root, lengths=(8, 9, 10, 8, 9), cameras=("0",))
    return root / f"videos/{BAD}/0.mp4"


def lerobot(root):
    write_v2(root, lerobot_episodes((6, 5, 7, 4, 8)), video=False)
    return root / f"data/chunk-000/episode_{BAD:06d}.parquet"


def lerobot_video(root):
    write_v2(root, lerobot_episodes((6, 5, 7, 4, 8), pictures=True))
    return next(root.glob(f"videos/**/episode_{BAD:06d}.mp4"))


def state_and_action(state, action):
    return {
        "fps": 10,
        "on_gap": "keep",
        "features": {
            "observation.state": {"from": [state], "method": "hold"},
            "action": {"from": [action]},
        },
    }


# By case: the format, what writes the files and gives the one to damage, how it is converted, the
# episodes that are lost, and what is said of them.
CASES = {
    "robomimic": (robomimic, {}, (4, 5), "a_2.hdf5"),
    "aloha": (aloha, {"fps": 50, "options": {"image_encoding": "rgb"}}, (2,), "episode_2.hdf5"),
    "minari": (minari, {"fps": 10}, (4, 5), "set_2"),
    "minari-arrow": (minari_arrow, {"fps": 10}, (2,), "data/2"),
    "rlds": (rlds, {"fps": 5}, (5,), "tfrecord-00002"),
    "mcap": (
        mcap,
        {"mapping": state_and_action("/joint_states.position", "/cmd_vel.linear")},
        (2,),
        "take_2",
    ),
    "folder": (
        folder,
        {"mapping": state_and_action("state", "action"), "options": {"fps": 10}},
        (2,),
        "take_2",
    ),
    "real-zarr": (real_zarr, {}, (2,), "episode 2"),
    "lerobot": (lerobot, {}, (2,), "episode_000002"),
    "lerobot-video": (lerobot_video, {}, (2,), "episode_000002"),
}
FORMATS = {"minari-arrow": "minari", "lerobot-video": "lerobot"}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DP_HUB_CACHE", str(tmp_path / "cache"))


def made(tmp_path, case):
    """The source, the file to damage, and the words for `convert`."""
    write, words, _, _ = CASES[case]
    source = tmp_path / "source"
    source.mkdir()
    victim = write(source)
    if case == "real-zarr":
        words = {"mapping": state_and_action("robot_eef_pose", "action")}
        words["mapping"]["features"]["observation.images.top"] = {"from": "camera_0"}
    if isinstance(words.get("mapping"), dict):
        (tmp_path / "m.yaml").write_text(json.dumps(words["mapping"]))
        words = words | {"mapping": tmp_path / "m.yaml"}
    return source, victim, words


def cut(victim):
    victim.write_bytes(victim.read_bytes()[: victim.stat().st_size * 3 // 4])


def episodes(folder):
    """The actions of each episode."""
    dataset = open_dataset(folder)
    rows = zip(dataset.episodes.starts, dataset.episodes.stops, strict=True)
    return [dataset.column("action")[start:stop] for start, stop in rows]


@pytest.mark.parametrize("case", CASES)
def test_one_file_that_is_cut_short_is_left_out_and_told(tmp_path, case):
    source, victim, words = made(tmp_path, case)
    name, lost = FORMATS.get(case, case), CASES[case][2]
    convert(name, source, tmp_path / "whole", **words)
    cut(victim)
    with pytest.raises(DataError) as refused:
        convert(name, source, tmp_path / "strict", **words)
    assert victim.name in str(refused.value) or victim.parent.name in str(refused.value)
    assert not (tmp_path / "strict").exists()
    done = convert(name, source, tmp_path / "ds", skip_bad=True, **words)
    assert len(done.bad) == 1
    assert CASES[case][3] in done.bad[0].reason
    left_out = json.loads((tmp_path / "ds/meta/dp_hub.json").read_text())["source"]["left_out"]
    assert [one["reason"] for one in left_out] == [done.bad[0].reason]
    whole = episodes(tmp_path / "whole")
    kept = [values for number, values in enumerate(whole) if number not in lost]
    got = episodes(tmp_path / "ds")
    assert len(got) == len(kept) == len(whole) - len(lost) >= 4
    for one, other in zip(got, kept, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("case", ["robomimic", "rlds"])
def test_it_is_left_out_by_several_processes_and_by_those_that_go_on(tmp_path, case, workers):
    source, victim, words = made(tmp_path, case)
    cut(victim)
    convert(case, source, tmp_path / "once", skip_bad=True, **words)

    def stop(progress):
        if progress.episodes == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(
            case, source, tmp_path / "ds", skip_bad=True, workers=workers, on_progress=stop, **words
        )
    done = convert(case, source, tmp_path / "ds", skip_bad=True, workers=workers, **words)
    assert len(done.bad) == 1
    files = sorted(p for p in (tmp_path / "once").rglob("*") if p.is_file())
    assert len(files) >= 5
    for file in files:
        assert (tmp_path / "ds" / file.relative_to(tmp_path / "once")).read_bytes() == (
            file.read_bytes()
        ), file


@pytest.mark.parametrize("case", ["robomimic", "aloha", "minari", "lerobot"])
def test_nothing_is_made_where_every_file_is_bad(tmp_path, case):
    source, victim, words = made(tmp_path, case)
    for file in source.rglob(f"*{victim.suffix}"):
        if file.suffix not in (".json", ".jsonl"):
            cut(file)
    with pytest.raises(DataError):
        convert(FORMATS.get(case, case), source, tmp_path / "ds", skip_bad=True, **words)
    assert not (tmp_path / "ds").exists()


def test_a_file_of_other_shapes_is_left_out_too(tmp_path):
    for number in range(3):
        write_aloha(tmp_path / f"source/episode_{number}.hdf5", 4, seed=number, cameras=())
    shutil.copy(tmp_path / "source/episode_0.hdf5", tmp_path / "source/episode_3.hdf5")
    write_aloha(tmp_path / "source/episode_1.hdf5", 4, cameras=("extra",))
    with pytest.raises(DataError, match="has observations/images/extra"):
        convert("aloha", tmp_path / "source", tmp_path / "strict", fps=50)
    done = convert("aloha", tmp_path / "source", tmp_path / "ds", fps=50, skip_bad=True)
    assert done.written.n_episodes == 3
    assert "has observations/images/extra" in done.bad[0].reason
