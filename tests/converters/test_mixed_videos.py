"""Copied videos of which some episodes cannot be copied: they are encoded again, and it is told."""

import json

import av
import numpy as np
import pytest
from numbered_videos import SIZE, number_of, numbered, write_numbered
from test_folder_source import arrays, save_npz

from dp_hub.dataset.checks import check
from dp_hub.dataset.convert import convert
from dp_hub.dataset.editing import Edit, edit
from dp_hub.dataset.reader import open_dataset
from dp_hub.errors import DataError

FEATURE = "observation.images.front"
ROWS = """
fps: 15
features:
  observation.state: {from: [state]}
  action: {from: [action]}
  observation.images.front: {from: front}
"""
N = 12


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DP_HUB_CACHE", str(tmp_path / "cache"))


def write_other(path, first, *, codec="libx264", pix_fmt="yuv420p", size=SIZE, options=None):
    """As `write_numbered`, in other ways."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=15, options=options or {"bf": "0"})
        stream.height, stream.width = size
        stream.pix_fmt = pix_fmt
        stream.codec_context.gop_size = 2
        for number in range(first, first + N):
            frame = av.VideoFrame.from_ndarray(numbered(number, size), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def plain(path, first):
    write_numbered(path, N, fps=15, first=first, bf=0, gop=2)


def long_groups(path, first):
    write_numbered(path, N, fps=15, first=first, bf=0, gop=50)


def reordered(path, first):
    write_numbered(path, N, fps=15, first=first, bf=2, gop=12)


def av1(path, first):
    write_other(path, first, codec="libsvtav1", options={"preset": "12", "crf": "20"})


def all_colours(path, first):
    write_other(path, first, pix_fmt="yuv444p")


def larger(path, first):
    write_other(path, first, size=(96, 128))


def write(folder, kinds):
    for number, kind in enumerate(kinds):
        episode = folder / f"episode_{number}"
        save_npz(episode, arrays(number, N))
        kind(episode / "front.mp4", 50 * number)
    (folder.parent / "mapping.yaml").write_text(ROWS)
    return folder


def converted(source, to, **options):
    return convert("folder", source, to, mapping=source.parent / "mapping.yaml", **options)


def files_of(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


KINDS = [plain, reordered, plain, long_groups, av1, reordered, all_colours, plain]


def test_what_cannot_be_copied_is_encoded_as_the_others_are_and_told(tmp_path):
    source = write(tmp_path / "in", KINDS)
    done = converted(source, tmp_path / "ds")
    [column] = [one for one in done.written.columns if one.is_visual]
    assert (column.copied, column.encoding, column.pix_fmt) == (True, "h264", None)
    notes = [note for note in done.source.notes if "encoded again" in note]
    assert notes == [
        f"{FEATURE}, episodes 1, 5: encoded again, not copied: it has frames that depend on "
        "later ones",
        f"{FEATURE}, episode 4: encoded again, not copied: it is av1, not h264",
        f"{FEATURE}, episode 6: encoded again, not copied: its pixels are yuv444p, not yuv420p",
    ]
    source_told = json.loads((tmp_path / "ds/meta/dp_hub.json").read_text())["source"]
    assert [one["episodes"] for one in source_told["encoded_again"]] == ["1, 5", "4", "6"]
    dataset = open_dataset(tmp_path / "ds")
    frames = np.asarray(dataset.cached_frames(FEATURE).open())
    numbers = [number_of(frame) for frame in frames]
    assert numbers == [50 * episode + row for episode in range(len(KINDS)) for row in range(N)]
    found = check(tmp_path / "ds").findings
    assert not [one for one in found if one.id.startswith(("VIDEO", "STATS", "SUM"))], found


def test_copies_in_between_hold_the_packets_of_their_source(tmp_path):
    source = write(tmp_path / "in", KINDS)
    converted(source, tmp_path / "ds")
    stored = set()
    for path in (tmp_path / "ds/videos").rglob("*.mp4"):
        with av.open(str(path)) as container:
            stored |= {bytes(packet) for packet in container.demux(video=0) if packet.size}
    n_copied = 0
    for number, kind in enumerate(KINDS):
        with av.open(str(source / f"episode_{number}/front.mp4")) as container:
            packets = {bytes(packet) for packet in container.demux(video=0) if packet.size}
        copied = kind in (plain, long_groups)
        assert (packets <= stored) == copied, (number, kind)
        n_copied += copied
    assert n_copied == 4


def test_the_bytes_depend_neither_on_processes_nor_on_interruptions(tmp_path):
    source = write(tmp_path / "in", KINDS)
    whole = converted(source, tmp_path / "whole")
    converted(source, tmp_path / "two", workers=2)
    for stop in (2, 6):

        def interrupt(progress, stop=stop):
            if progress.episodes == stop:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            converted(source, tmp_path / "cut", on_progress=interrupt)
    cut = converted(source, tmp_path / "cut", workers=2)
    assert cut.source.notes == whole.source.notes
    expected = files_of(tmp_path / "whole")
    assert len(expected) > 8
    assert files_of(tmp_path / "two") == expected
    assert files_of(tmp_path / "cut") == expected


def test_statistics_taken_anew_by_an_edit_are_those_of_the_conversion(tmp_path):
    source = write(tmp_path / "in", KINDS)
    converted(source, tmp_path / "ds")
    edit([tmp_path / "ds"], tmp_path / "new", Edit(measure=True))
    old, new = ((tmp_path / name / "meta/stats.json").read_text() for name in ("ds", "new"))
    assert json.loads(old) == json.loads(new)


def test_a_trimmed_copy_that_begins_between_key_frames_is_encoded_again(tmp_path):
    source = write(tmp_path / "in", [long_groups, plain])
    converted(source, tmp_path / "ds")
    edit([tmp_path / "ds"], tmp_path / "new", Edit(trim=["0:3:9"]))
    frames = np.asarray(open_dataset(tmp_path / "new").cached_frames(FEATURE).open())
    numbers = [number_of(frame) for frame in frames]
    assert numbers == [*range(3, 9), *range(50, 50 + N)]


@pytest.mark.parametrize("pixels", [all_colours, plain])
def test_the_pixels_of_the_first_episode_are_those_of_all(tmp_path, pixels):
    source = write(tmp_path / "in", [pixels, reordered, av1])
    converted(source, tmp_path / "ds")
    formats = set()
    for path in (tmp_path / "ds/videos").rglob("*.mp4"):
        with av.open(str(path)) as container:
            formats.add(container.streams.video[0].codec_context.pix_fmt)
    assert formats == {"yuv444p" if pixels is all_colours else "yuv420p"}
    frames = np.asarray(open_dataset(tmp_path / "ds").cached_frames(FEATURE).open())
    numbers = [number_of(frame) for frame in frames]
    assert numbers == [50 * episode + row for episode in range(3) for row in range(N)]


def test_another_size_stays_an_error(tmp_path):
    source = write(tmp_path / "in", [plain, larger])
    with pytest.raises(DataError, match="96, 128"):
        converted(source, tmp_path / "ds")
    assert not (tmp_path / "ds").exists()


def test_what_there_is_no_encoder_for_is_refused_with_the_reason(tmp_path):
    def hevc(path, first):
        options = {"x265-params": "bframes=0:log-level=none"}
        write_other(path, first, codec="libx265", options=options)

    source = write(tmp_path / "in", [hevc, plain])
    with pytest.raises(DataError, match="it is h264, not hevc") as caught:
        converted(source, tmp_path / "ds")
    assert "--codec h264" in str(caught.value.hint)
