"""Names, licences and cards, without a Hub."""

import hashlib
import string
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dp_hub.errors import HubError
from dp_hub.hub import is_hub_name, parse_name
from dp_hub.hub.cards import dataset_card, front_matter, license_of, with_license
from dp_hub.hub.contents import gather
from dp_hub.hub.digests import Known
from dp_hub.hub.kinds import belongs


def test_names_with_and_without_a_revision() -> None:
    assert parse_name("me/pusht") == ("me/pusht", None)
    assert parse_name("me/pusht@data-v3") == ("me/pusht", "data-v3")
    assert parse_name("me/p.u_s-h@refs/heads/a/b") == ("me/p.u_s-h", "refs/heads/a/b")


@pytest.mark.parametrize(
    "text",
    ["me", "/me/x", "./me/x", "~/x", "me/x/y", "me/x@", "me/x@../y", "me/x@a b", "a--b/x", "me/.x",
     "me/x.", "me/..", "me/x\n", "@x", "me//x"],
)  # fmt: skip
def test_other_texts_are_no_names(text: str) -> None:
    assert not is_hub_name(text)
    with pytest.raises(HubError):
        parse_name(text)


@given(st.text(alphabet=string.printable, max_size=30))
def test_a_name_never_holds_a_way_out_of_a_folder(text: str) -> None:
    if is_hub_name(text):
        repo_id, revision = parse_name(text)
        assert repo_id.count("/") == 1
        for part in [*repo_id.split("/"), *(revision or "x").split("/")]:
            assert part not in ("", ".", "..") and "\\" not in part


TEXTS = ["", "# title\n", "---\n---\nbody\n", "---\ntags: [a]\n---\n# title\n---\nrule\n",
         "---\r\ntags: [a]\r\n---\r\nbody", "---\nlicense:\ntags:\n- a\n---\nbody\n"]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_a_licence_is_added_and_nothing_else_changes(text: str) -> None:
    assert license_of(text) is None
    licensed = with_license(text, "mit")
    assert license_of(licensed) == "mit"
    assert with_license(licensed, "mit") == licensed
    others = {key: value for key, value in front_matter(licensed).items() if key != "license"}
    assert others == {key: value for key, value in front_matter(text).items() if key != "license"}
    for word in ("title", "body", "rule"):
        assert (word in licensed) == (word in text)


def test_two_licences_are_a_question_for_the_user() -> None:
    with pytest.raises(HubError, match="names the licence mit, the push cc0"):
        with_license("---\nlicense: mit\n---\n", "cc0-1.0")
    with pytest.raises(HubError, match="not YAML"):
        license_of("---\na: [\n---\n")


def test_the_card_tells_the_viewer_where_the_data_is() -> None:
    info = {
        "codebase_version": "v3.0",
        "fps": 10,
        "total_episodes": 206,
        "total_frames": 25_650,
        "features": {"action": {"dtype": "float32", "shape": [2]}},
    }
    text = dataset_card("me/pusht", info, "mit")
    matter = front_matter(text)
    assert matter["configs"] == [{"config_name": "default", "data_files": "data/*/*.parquet"}]
    assert matter["license"] == "mit" and matter["size_categories"] == ["10K<n<100K"]
    assert matter["tags"][:2] == ["LeRobot", "robotics"]
    assert matter["task_categories"] == ["robotics"]
    assert "206 episodes, 25,650 frames at 10 Hz" in text
    assert yaml.safe_load(text.split("---")[1]) == matter


def dataset_at(root: Path, license: str | None = None, readme: str | None = None) -> Path:
    (root / "meta").mkdir(parents=True)
    (root / "meta/info.json").write_text('{"codebase_version": "v3.0"}')
    if license is not None:
        (root / "meta/dp_hub.json").write_text(f'{{"license": "{license}"}}')
    if readme is not None:
        (root / "README.md").write_text(readme)
    return root


def readme_of(folder: Path, **options: object) -> str:
    defaults = {"remote_readme": None, "license": None, "ask": None}
    content = gather(folder, "dataset", "me/x", **{**defaults, **options})["README.md"]  # type: ignore[arg-type]
    assert isinstance(content, bytes)
    return content.decode()


def test_the_licence_comes_from_who_knows_it_best(tmp_path: Path) -> None:
    mine = "---\nlicense: mit\n---\nmine\n"
    folder = dataset_at(tmp_path / "a", license="cc0-1.0", readme=mine)
    assert readme_of(folder) == mine
    folder = dataset_at(tmp_path / "b", license="cc0-1.0")
    assert license_of(readme_of(folder)) == "cc0-1.0"
    assert license_of(readme_of(folder, license="other")) == "other"
    folder = dataset_at(tmp_path / "c")
    assert readme_of(folder, remote_readme=mine) == mine
    assert license_of(readme_of(folder, ask=lambda: "apache-2.0")) == "apache-2.0"
    for ask in (None, lambda: ""):
        with pytest.raises(HubError, match="no licence is known"):
            readme_of(folder, ask=ask)
    with pytest.raises(HubError, match="not the identifier"):
        readme_of(folder, license="all mine!")


def test_a_damaged_dataset_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    folder = dataset_at(tmp_path / "a", license="mit")
    for text in ("", "[]", "{}", '{"codebase_version": 3}', '{"codebase_version": "3.0; x"}'):
        (folder / "meta/info.json").write_text(text)
        with pytest.raises(HubError, match="not a dataset's"):
            readme_of(folder)
    (folder / "meta/info.json").write_text('{"codebase_version": "v3.0"}')
    (folder / "README.md").write_bytes(b"\xff\xfe")
    with pytest.raises(HubError, match="not UTF-8"):
        readme_of(folder)


def test_only_parts_of_a_dataset_or_policy_are_ever_published() -> None:
    dataset = [
        "meta/alignment.json",
        "meta/alignment.png",
        "meta/info.json",
        "data/chunk-000/file-000.parquet",
        "data/chunk-1000/file-001.parquet",
        "videos/observation.images.top/chunk-000/file-000.mp4",
        "README.md",
        "LICENSE",
    ]
    policy = [
        "config.json",
        "model.safetensors",
        "train_config.yaml",
        "eval_pusht.json",
        "media/rollouts.mp4",
        "policy_preprocessor_step_5_normalizer_processor.safetensors",
    ]
    neither = [
        "optimizer.bin",
        "checkpoints/1/model.safetensors",
        ".env",
        "token",
        "random_states_0.pkl",
        "meta/info.json~",
        "data/chunk-000/file-000.parquet.tmp",
        "data/raw.zarr.zip",
        "media/../token.png",
        ".cache/x",
        "training_state/optimizer.safetensors",
    ]
    assert (len(dataset), len(policy), len(neither)) == (8, 6, 11)
    assert [path for path in dataset if not belongs(path, "dataset")] == []
    assert [path for path in policy if not belongs(path, "policy")] == []
    assert [path for path in neither if belongs(path, "dataset") or belongs(path, "policy")] == []


def test_every_flipped_bit_is_seen(tmp_path: Path) -> None:
    data = bytes(range(100))
    path = tmp_path / "f"
    sha256 = hashlib.sha256(data).hexdigest()
    pointer = (
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize 100\n".encode()
    )
    plain, large = (
        hashlib.sha1(b"blob %d\0" % len(text) + text).hexdigest() for text in (data, pointer)
    )
    listings = [
        Known("f", 100, sha256, large),
        Known("f", 100, None, large),
        Known("f", 100, None, plain),
    ]
    path.write_bytes(data)
    assert all(known.holds(path) and known.holds(data) for known in listings)
    for bit in range(800):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        assert not any(known.holds(bytes(flipped)) for known in listings)
    path.unlink()
    assert not any(known.holds(path) or known.holds(data[:-1]) for known in listings)
