"""README.md of a dataset: what the Hub and people read in it, and that it does as it says."""

import json
import re
import shutil

import pytest
from made_datasets import edit_json, episodes, without_hashes, write

from dp_hub.dataset.card import PICTURE, make_card, plain_card
from dp_hub.dataset.facts import read_facts
from dp_hub.hub.cards import GENERATED, front_matter
from dp_hub.hub.kinds import belongs

PNG = b"\x89PNG\r\n\x1a\n"
FACTS = {"tag": "data-v3"}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return write(tmp_path_factory.mktemp("card") / "ds", episodes(size=(16, 16)))


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    made = episodes(size=(32, 48))
    return write(tmp_path_factory.mktemp("card") / "ds", made, images="video")


def text_of(folder, **options):
    return make_card(folder, "me/pusht", "mit", {**FACTS, **options})["README.md"].decode()


def test_card_and_picture_are_files_that_a_push_sends(pictures):
    made = make_card(pictures, "me/pusht", "mit", FACTS)
    assert set(made) == {"README.md", "media/overview.png"}
    assert all(belongs(name, "dataset") for name in made)
    assert made[PICTURE].startswith(PNG)
    assert f"]({PICTURE})" in made["README.md"].decode()


def test_front_matter_is_what_the_hub_reads(pictures):
    assert front_matter(text_of(pictures)) == {
        "license": "mit",
        "task_categories": ["robotics"],
        "tags": ["LeRobot", "robotics", "dp_hub"],
        "size_categories": ["n<1K"],
        "configs": [{"config_name": "default", "data_files": "data/*/*.parquet"}],
    }


def test_card_says_what_info_says(pictures):
    text, facts = text_of(pictures), read_facts(pictures)
    assert "4 episodes, 27 frames at 10 Hz (2.7 s)" in text
    assert "| 3, 6 and 12 frames (0.3, 0.6 and 1.2 s) |" in text
    assert f"`{facts.fingerprint}`" in text
    assert "| `observation.image` | image (webp) | 16x16x3 |" in text
    assert "- push (4 episodes)" in text
    assert "Lossy" not in text


def test_a_push_knows_that_it_may_replace_the_card(pictures):
    assert GENERATED in text_of(pictures)
    assert GENERATED in (pictures / "README.md").read_text()


def test_card_is_honest_about_video(videos):
    text = text_of(videos)
    assert re.search(r"Lossy: the pictures of `observation.image` .* close to, not equal to", text)
    assert "video (h264 crf 23 yuv420p)" in text
    assert "the frames of the videos are not in them" in text


def test_equal_content_gives_equal_bytes(pictures, tmp_path):
    copy = shutil.copytree(pictures, tmp_path / "elsewhere")
    first = make_card(pictures, "me/pusht", "mit", FACTS)
    (copy / "README.md").write_bytes(first["README.md"])
    (copy / "media").mkdir()
    (copy / "media" / "overview.png").write_bytes(first[PICTURE])
    assert make_card(copy, "me/pusht", "mit", FACTS) == first


def test_versions_and_names_are_in_the_commands(pictures):
    text = text_of(pictures)
    assert 'dp_hub.open_dataset("me/pusht@data-v3")' in text
    assert 'LeRobotDataset("me/pusht", revision="data-v3")' in text
    assert "revision=" not in text_of(pictures, tag=None)


def test_every_example_is_python(pictures, videos):
    examples = [example for text in (text_of(pictures), text_of(videos), plain_card(pictures))
                for example in re.findall(r"```python\n(.*?)```", text, re.DOTALL)]  # fmt: skip
    assert len(examples) == 7
    for example in examples:
        compile(example, "README.md", "exec")


def test_the_datasets_example_loads_the_rows(pictures, tmp_path):
    datasets = pytest.importorskip("datasets")
    folder = shutil.copytree(pictures, tmp_path / "snapshot")
    for name, data in make_card(pictures, "me/pusht", "mit", FACTS).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    loaded = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.num_rows == 27  # and not the picture or the tables of meta/


def test_the_card_that_is_written_with_a_dataset_has_no_name_and_no_picture(pictures):
    text = (pictures / "README.md").read_text()
    assert text == plain_card(pictures)
    assert "license" not in front_matter(text)
    assert PICTURE not in text and "load_dataset" not in text
    assert "4 episodes, 27 frames" in text


def test_names_of_tasks_do_nothing_in_markdown(tmp_path):
    task = "<script>alert(1)</script> | *push*\n# the `T`"
    text = text_of(write(tmp_path / "ds", episodes(task=task)))
    assert r"- \<script\>alert(1)\</script\> \| \*push\* \# the \`T\` (4 episodes)" in text


def test_many_tasks_are_cut(tmp_path):
    made = episodes([1] * 30)
    made = [type(e)(e.data, task=f"task {i}") for i, e in enumerate(made)]
    text = text_of(write(tmp_path / "ds", made))
    assert "- and 10 more" in text and text.count("(1 episode)") == 20


def test_datasets_it_was_made_from_are_named(tmp_path):
    folder = write(tmp_path / "ds", episodes())
    sources = [{"name": "me/a", "revision": "data-v2", "fingerprint": None, "license": "mit"},
               {"name": "a folder", "revision": None}]  # fmt: skip
    edit_json(folder / "meta" / "dp_hub.json", sources=sources)
    text = text_of(folder)
    assert front_matter(text)["source_datasets"] == ["me/a"]
    assert "- Made from me/a at `data-v2`, licence mit." in text
    assert "- Made from a folder." in text


def test_a_dataset_of_another_program_gets_a_card(shared_data, tmp_path):
    made = make_card(shared_data / "samples" / "lerobot_v30_pusht", "me/p", "mit", {})
    text = made["README.md"].decode()
    assert "206 episodes, 25,650 frames at 10 Hz (42 min 45 s)" in text
    assert "motor_0, motor_1" in text and "fingerprint" not in text
    assert made[PICTURE].startswith(PNG)


def test_a_dataset_with_little_meta_gets_a_card(tmp_path):
    folder = without_hashes(write(tmp_path / "ds", episodes()))
    (folder / "meta" / "stats.json").unlink()
    info = json.loads((folder / "meta" / "info.json").read_text())
    assert info["total_episodes"] == 4
    assert make_card(folder, "me/p", "mit", {})[PICTURE].startswith(PNG)
