"""The picture of a dataset: it shows the frames it names, and it fits on its page."""

import io
import shutil

import numpy as np
import pyarrow as pa
import pytest
from made_datasets import edit_json, episodes, rewrite_episodes, write
from matplotlib import rcParams
from PIL import Image

from dp_hub.dataset import overview_drawing
from dp_hub.dataset.meta import read_meta
from dp_hub.dataset.overview import collect, spread
from dp_hub.dataset.overview_drawing import draw
from dp_hub.errors import DataError


def overview_of(folder):
    return collect(read_meta(folder))


def pixels(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def check_frames(overview, tolerance):
    """Every frame is the one whose number it bears: `made_datasets.episodes` paints them so."""
    seen = []
    for camera in overview.cameras:
        for strip in (strip for row in camera.rows for strip in row):
            assert strip.frames[0] == 0 and strip.frames[-1] == strip.length - 1
            for frame, picture in zip(strip.frames, strip.pictures, strict=True):
                colour = picture.reshape(-1, 3).mean(axis=0)
                np.testing.assert_allclose(
                    colour, [10 * strip.episode, 5 * frame, 200], atol=tolerance
                )
                seen.append((strip.episode, frame))
    return seen


def test_first_middle_and_last_frames_of_episodes_over_the_whole_set(tmp_path):
    made = episodes((7, 3, 12, 5, 9, 4, 6, 8), size=(16, 16))
    seen = check_frames(overview_of(write(tmp_path / "ds", made)), tolerance=0)
    assert len(seen) == 18
    assert [e for e, frame in seen if frame == 0] == [0, 1, 3, 4, 6, 7]


@pytest.mark.parametrize("codec", ["h264"])
def test_video_frames_are_sought_exactly(tmp_path, codec):
    made = episodes((7, 3, 12, 5), size=(32, 48))
    folder = write(tmp_path / "ds", made, images="video", fps=30)
    assert len(check_frames(overview_of(folder), tolerance=2.4)) == 12  # steps of 5 are told apart


def test_pictures_are_found_in_row_groups_of_many_episodes(tmp_path):
    import pyarrow.parquet as pq

    folder = write(tmp_path / "ds", episodes((40, 3, 30), size=(16, 16)))
    [path] = (folder / "data").rglob("*.parquet")
    pq.write_table(pq.read_table(path), path, row_group_size=50)
    assert len(check_frames(overview_of(folder), tolerance=0)) == 9


def test_one_episode_shows_six_frames(tmp_path):
    seen = check_frames(overview_of(write(tmp_path / "ds", episodes([30], size=(16, 16)))), 0)
    assert seen == [(0, 0), (0, 6), (0, 12), (0, 17), (0, 23), (0, 29)]


def test_without_pictures_the_first_action_dimensions_are_drawn_over_time(tmp_path):
    made = episodes((7, 3, 12), dims=6)
    traces = overview_of(write(tmp_path / "ds", made)).traces
    assert (traces.feature, traces.n_dimensions, len(traces.names)) == ("action", 6, 4)
    for values, episode in zip(traces.episodes, made, strict=True):
        np.testing.assert_array_equal(values, episode.data["action"][:, :4])


def test_ranges_are_those_of_the_actions(tmp_path):
    made = episodes(dims=3)
    ranges = overview_of(write(tmp_path / "ds", made)).ranges
    everything = np.concatenate([e.data["action"] for e in made])
    assert [r.name for r in ranges] == ["action_0", "action_1", "action_2"]
    np.testing.assert_array_equal([r.low for r in ranges], everything.min(axis=0))
    np.testing.assert_allclose([r.q99 for r in ranges], np.quantile(everything, 0.99, axis=0))


def test_missing_videos_are_named_and_actions_drawn_instead(tmp_path):
    folder = write(tmp_path / "ds", episodes(size=(32, 32)), images="video")
    shutil.rmtree(folder / "videos")
    overview = overview_of(folder)
    assert overview.cameras[0].rows == () and overview.traces is not None
    shutil.rmtree(folder / "data")
    assert overview_of(folder).traces is None
    assert draw(overview_of(folder))


def test_a_damaged_video_is_an_error(tmp_path):
    folder = write(tmp_path / "ds", episodes(size=(32, 32)), images="video")
    [path] = (folder / "videos").rglob("*.mp4")
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DataError, match="cannot be decoded"):
        overview_of(folder)


def test_a_damaged_table_is_an_error(tmp_path):
    folder = write(tmp_path / "ds", episodes(size=(16, 16)))
    [path] = (folder / "data").rglob("*.parquet")
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        overview_of(folder)


def test_a_dataset_without_episodes_has_no_picture(tmp_path):
    folder = write(tmp_path / "ds", episodes())
    edit_json(folder / "meta" / "info.json", total_episodes=0, total_frames=0)
    with pytest.raises(DataError, match="no episodes to draw"):
        overview_of(folder)


KINDS = {
    "pictures": dict(lengths=(7, 3, 12), size=(16, 16)),
    "tall pictures": dict(lengths=(7, 3, 12), size=(64, 16)),
    "numbers": dict(lengths=(7, 3, 12)),
    "one frame": dict(lengths=(1,)),
    "wide": dict(lengths=(40, 90), dims=26),
    "very wide": dict(lengths=(40, 90), dims=90),
    "many": dict(lengths=tuple(1 + i % 50 for i in range(300))),
}


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_cut_off_at_the_edges(tmp_path, kind):
    image = pixels(draw(overview_of(write(tmp_path / "ds", episodes(**KINDS[kind])))))
    assert image.shape[1] == 1280 and 500 < image.shape[0] < 3000
    for edge in (image[:8], image[-8:], image[:, :8], image[:, -8:]):
        assert (edge == 255).all()
    assert (image < 100).any()


def test_words_stay_on_the_page_and_apart(tmp_path, monkeypatch):
    names = [f"left_arm_very_long_joint_name_with_number_{i}" for i in range(14)]
    folder = write(tmp_path / "ds", episodes(dims=14))
    info = read_meta(folder).info
    info["features"]["action"]["names"] = {"motors": names}
    edit_json(folder / "meta" / "info.json", features=info["features"])
    boxes = []
    place = overview_drawing._Sheet.text

    def note(sheet, *arguments, **options):
        place(sheet, *arguments, **options)
        boxes.append(sheet.page.texts[-1].get_window_extent(sheet.renderer))

    monkeypatch.setattr(overview_drawing._Sheet, "text", note)
    draw(overview_of(folder))
    assert len(boxes) > 45
    for i, box in enumerate(boxes):
        assert box.x0 >= 0 and box.x1 <= 1280 and box.y0 >= 0
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])


def test_names_are_drawn_as_they_are_whatever_is_in_them(tmp_path, recwarn):
    folder = write(tmp_path / "ds", episodes(dims=2))
    info = read_meta(folder).info
    info["features"]["action"]["names"] = ["$\\frac{1}", "関節"]
    edit_json(folder / "meta" / "info.json", features=info["features"])
    assert draw(overview_of(folder))
    assert not recwarn.list


def test_settings_of_the_user_change_neither_the_picture_nor_are_they_changed(tmp_path):
    overview = overview_of(write(tmp_path / "ds", episodes()))
    expected = draw(overview)
    before = rcParams["lines.linewidth"], rcParams["axes.facecolor"]
    rcParams["axes.facecolor"] = "black"
    try:
        assert draw(overview) == expected
        assert rcParams["axes.facecolor"] == "black"
    finally:
        rcParams["axes.facecolor"] = before[1]


@pytest.mark.parametrize(("total", "wanted", "found"), [
    (10, 3, [0, 4, 9]), (2, 3, [0, 1]), (1, 6, [0]), (0, 1, []), (5, 1, [0])
])  # fmt: skip
def test_spread_is_even_and_never_twice(total, wanted, found):
    assert spread(total, wanted) == found


@pytest.mark.parametrize("column", ["data/chunk_index", "dataset_to_index"])
def test_an_episode_without_a_place_is_an_error(tmp_path, column):
    folder = write(tmp_path / "ds", episodes(size=(16, 16)))

    def forget(table):
        values = table.column(column).to_pylist()
        at = table.schema.names.index(column)
        return table.set_column(at, column, pa.array([None, *values[1:]], pa.int64()))

    rewrite_episodes(folder, forget)
    with pytest.raises(DataError, match=f"{column} in .* does not place every episode"):
        overview_of(folder)
