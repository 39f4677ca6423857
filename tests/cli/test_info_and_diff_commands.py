"""``dp-hub info`` and ``dp-hub diff`` as a person types them."""

import json
import subprocess
import sys

import pytest

CODE = "from dp_hub.cli.main import main; main()"


def dp_hub(*words):
    command = [sys.executable, "-c", CODE, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def pusht(tmp_path_factory, pusht_first5_zip):
    """Two conversions of the real demonstrations: as they are, and without n_contacts."""
    from dp_hub.dataset.convert import convert

    folder = tmp_path_factory.mktemp("info")
    convert("zarr", pusht_first5_zip, folder / "a", task="Push the T.")
    convert("zarr", pusht_first5_zip, folder / "b", task="Push the T.", drop=["n_contacts"])
    return folder


def test_info_is_facts_on_stdout(pusht):
    done = dp_hub("info", pusht / "a")
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["episodes", "5"] in lines
    assert ["observation.image", "image", "(webp)", "96x96x3"] in lines
    assert ["5", "Push", "the", "T."] in lines
    assert "738 frames" not in done.stdout and "738 at 10 Hz, 1 min 14 s" in done.stdout
    assert "pusht_first5.zarr.zip" in done.stdout


def test_info_as_json_has_everything(pusht):
    values = json.loads(dp_hub("info", pusht / "a", "--json").stdout)
    assert (values["n_episodes"], values["n_frames"], values["duration_s"]) == (5, 738, 73.8)
    assert values["tasks"] == {"Push the T.": 5}
    assert values["features"][0]["name"] == "action"
    assert values["size_bytes"]["total"] > values["size_bytes"]["data"] > 100_000
    assert values["license"] is None and len(values["fingerprint"]) == 64


def test_info_draws_the_picture(pusht, tmp_path):
    done = dp_hub("info", pusht / "a", "--picture", tmp_path / "p.png")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["."], "error: . is not a dataset: it has no meta/info.json"),
        (["nowhere"], "error: there is no folder nowhere, and it is not a name on the Hub"),
        (["A", "--picture", "no/folder.png"], "error: there is no folder no"),
        (["A", "--picture", "p.jpg"], "error: the picture is a PNG"),
    ],
)
def test_wrong_words_are_a_sentence(pusht, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    done = dp_hub("info", *[pusht / "a" if word == "A" else word for word in words])
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(message)


def test_diff_of_equal_datasets_succeeds(pusht):
    done = dp_hub("diff", pusht / "a", pusht / "a")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("the same content, in 5 episodes\n")


def test_diff_says_what_is_different_and_exits_with_1(pusht):
    done = dp_hub("diff", pusht / "a", pusht / "b")
    assert (done.returncode, done.stderr) == (1, "")
    assert "features:\n  - n_contacts\n" in done.stdout
    assert "5 as they were" in done.stdout
    assert "statistics: none moved by more than 1% of its range" in done.stdout


def test_diff_as_json(pusht):
    done = dp_hub("diff", pusht / "a", pusht / "b", "--json")
    assert done.returncode == 1
    values = json.loads(done.stdout)
    assert (values["equal"], values["features_removed"]) == (False, ["n_contacts"])


def test_trouble_is_2_so_that_scripts_can_tell_it_from_a_difference(pusht):
    done = dp_hub("diff", pusht / "a", "nowhere")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: there is no folder nowhere")
    assert "Traceback" not in done.stderr
