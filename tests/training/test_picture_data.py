"""What a policy that sees learns from: pictures in their file, in memory or streamed."""

import numpy as np
import pytest
import torch

import dp_hub
from dp_hub.config import build
from dp_hub.envs.pusht.drawing import PushTDrawing
from dp_hub.envs.pusht.physics import PushTPhysics
from dp_hub.envs.pusht.symmetry import mirrored, mirrored_pictures
from dp_hub.errors import ConfigError
from dp_hub.sampling.frame_file import FrameFile
from dp_hub.training.config import TrainConfig
from dp_hub.training.data import training_data, what_is_used

CPU = torch.device("cpu")
OBSERVED = ["observation.image", "observation.state[:2]"]


def configuration(**changes):
    values = {
        "dataset": "unused",
        "out_dir": "unused",
        "policy": {"observations": OBSERVED},
        "split": {"val_ratio": 0.2},
        "batch_size": 16,
        "steps": 20,
    }
    return build(TrainConfig, values | changes, where="the test")


def data_of(folder, **changes):
    return training_data(dp_hub.open_dataset(folder), configuration(**changes), device=CPU)


def test_a_run_tells_what_it_uses_and_what_not(pusht_webp):
    told = what_is_used(dp_hub.open_dataset(pusht_webp), configuration().policy)
    assert told == (
        "action from observation.image, observation.state[:2] of 5 numbers; "
        "not observed: observation.environment_state"
    )


def test_batches_hold_the_recorded_pictures(pusht_webp):
    dataset, data = dp_hub.open_dataset(pusht_webp), data_of(pusht_webp)
    assert data.features == {
        "observation.image": (96, 96, 3),
        "observation.state": 5,
        "action": 2,
    }
    assert sorted(data.normalizer.names) == ["action", "observation.state"]
    assert isinstance(data.train.observed["observation.image"], FrameFile)
    batch = next(data.batches)
    assert batch["observation.image"].shape == (16, 2, 96, 96, 3)
    assert batch["observation.image"].dtype == torch.uint8
    states, pictures = dataset.column("observation.state"), dataset.column("observation.image")
    for state, picture in zip(batch["observation.state"], batch["observation.image"], strict=True):
        frame = int(np.flatnonzero((states == state[1].numpy()).all(axis=1))[0])
        assert np.array_equal(picture[1], pictures[frame])


def test_mirrored_pictures_stand_behind_the_originals(pusht_webp):
    plain, doubled = data_of(pusht_webp), data_of(pusht_webp, augment="pusht_mirror")
    n = len(plain.train)
    assert len(doubled.train) == 2 * n
    rows = np.array([0, 5, n - 1])
    original, twin = doubled.train.__getitems__(rows), doubled.train.__getitems__(rows + n)
    assert torch.equal(
        original["observation.image"], plain.train.__getitems__(rows)["observation.image"]
    )
    flipped = mirrored_pictures(original["observation.image"].numpy())
    assert np.array_equal(twin["observation.image"], flipped)


def test_the_mirror_image_of_a_picture_is_the_picture_of_the_mirrored_table():
    table, twin, drawing = PushTPhysics(), PushTPhysics(), PushTDrawing()
    table.reset(3)
    state = {"observation.state": table.state()[None]}
    other = mirrored(state)["observation.state"][0]
    twin.reset_to(other, legacy=False)
    seen, expected = mirrored_pictures(drawing.frame(table, 96)), drawing.frame(twin, 96)
    different = np.abs(seen.astype(int) - expected).max(axis=-1) > 40
    assert different.mean() < 0.01  # edges are rounded otherwise


@pytest.mark.parametrize("augment", [None, "pusht_mirror"])
@pytest.mark.parametrize("form", ["pusht_webp", "pusht_video"])
def test_streaming_gives_the_windows_of_the_whole(form, augment, request):
    folder = request.getfixturevalue(form)
    whole = data_of(folder, augment=augment)
    config = configuration(streaming={"pool_mb": 8}, augment=augment)
    streamed = training_data(dp_hub.stream_dataset(folder), config, device=CPU)
    assert streamed.features == whole.features
    for name in whole.normalizer.names:
        assert torch.equal(whole.normalizer[name].scale, streamed.normalizer[name].scale)
    found = {}
    for source in (whole, streamed):
        batches = [next(source.batches) for _ in range(len(source.batches))]
        pictures = torch.cat([batch["observation.image"] for batch in batches])
        found[source is whole] = {one.numpy().tobytes() for one in pictures}
    assert len(found[True]) > 100
    common = found[True] & found[False]  # the last, short batch of an epoch is left out of both
    assert len(common) > 0.9 * len(found[True])


def test_inpainting_windows_observe_the_whole_horizon(pusht_webp):
    data = data_of(pusht_webp, policy={"observations": OBSERVED, "conditioning": "inpainting"})
    assert next(data.batches)["observation.image"].shape == (16, 16, 96, 96, 3)


def test_pictures_cannot_be_predicted(pusht_webp):
    with pytest.raises(ConfigError, match="holds images, which a policy cannot predict"):
        data_of(pusht_webp, policy={"observations": OBSERVED[1:], "action": "observation.image"})
