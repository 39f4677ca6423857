"""The arm and the camera of the world ``pusht`` as a controller and a recorder use them."""

import time
from collections.abc import Iterator

import numpy as np
import pytest
from world_help import in_process, wait_for

from dp_hub.envs.pusht.drawing import PushTDrawing
from dp_hub.envs.pusht.physics import PushTPhysics
from dp_hub.robot.devices.sim_arm import SimArm
from dp_hub.robot.devices.sim_camera import SimCamera
from dp_hub.robot.space import Space
from dp_hub.robot.worlds.control import WorldControl
from dp_hub.robot.worlds.ports import Ports, WorldMemory
from dp_hub.robot.worlds.pusht import PushTWorld

SHAPES = {"position": (2,), "velocity": (2,), "block": (3,), "keypoints": (18,), "state": (5,)}


@pytest.fixture
def ports() -> Iterator[Ports]:
    with in_process(PushTWorld, seed=2, image_px=64) as (_, opened):
        yield opened


@pytest.fixture
def control(ports: Ports) -> Iterator[WorldControl]:
    one = WorldControl(ports)
    yield one
    one.close()


@pytest.fixture
def arm(ports: Ports) -> Iterator[SimArm]:
    one = SimArm(ports=ports, silent_s=30.0)
    one.open()
    yield one
    one.close()


@pytest.fixture
def camera(ports: Ports) -> Iterator[SimCamera]:
    one = SimCamera(ports=ports)
    one.open()
    yield one
    one.close()


def test_what_the_arm_reads_has_the_shapes_and_units_it_says(arm: SimArm) -> None:
    assert arm.space == Space(("x", "y"), ("px", "px"))
    assert {field.name: field.shape for field in arm.fields} == SHAPES
    for field in arm.fields:
        assert len(field.names) == len(field.units) == field.shape[0]
    reading = arm.read()
    assert {name: value.shape for name, value in reading.values.items()} == SHAPES
    assert 0 <= time.monotonic() - reading.time_s < 5
    state = reading.values["state"]
    np.testing.assert_array_equal(state[:2], reading.values["position"])
    np.testing.assert_array_equal(state[2:], reading.values["block"])


def test_holding_stays_and_stopping_takes_no_targets(arm: SimArm, control: WorldControl) -> None:
    control.reset(seed=2)
    start = arm.read().values["position"]
    arm.send(np.array([20.0, 20.0]))
    wait_for(lambda: np.hypot(*(arm.read().values["position"] - start)) > 20)
    arm.hold()
    wait_for(lambda: np.abs(arm.read().values["velocity"]).max() < 0.5)
    arm.stop()
    held = arm.read().values["position"]
    arm.send(np.array([500.0, 20.0]))
    time.sleep(0.3)
    assert arm.read().values["position"] == pytest.approx(held, abs=0.5)
    arm.close()
    arm.open()  # opened anew, it follows again
    arm.send(np.array([500.0, 20.0]))
    wait_for(lambda: arm.read().values["position"][0] > held[0] + 5)


def test_the_camera_shows_each_picture_once_with_its_time(
    camera: SimCamera, control: WorldControl
) -> None:
    began_s = control.reset(seed=9)
    seen = [frame for frame in (camera.grab(5.0) for _ in range(12)) if frame is not None]
    assert len(seen) == 12
    times_s = np.array([frame.time_s for frame in seen])
    assert (np.diff(times_s) > 0).all()
    assert 0.02 < np.median(np.diff(times_s)) < 0.2
    assert seen[0].picture.shape == camera.shape == (64, 64, 3)
    table = PushTPhysics()
    table.reset(9)
    assert seen[-1].time_s > began_s
    np.testing.assert_array_equal(seen[-1].picture, PushTDrawing().frame(table, 64))


def test_a_camera_that_stalls_gives_none_and_then_goes_on(
    camera: SimCamera, control: WorldControl
) -> None:
    assert camera.grab(5.0) is not None
    control.stall_cameras(600.0)
    wait_for(lambda: camera.grab(0.3) is None)
    control.stall_cameras(0.0)
    assert camera.grab(5.0) is not None


def test_stamped_on_arrival_samples_carry_a_later_time() -> None:
    options = {"state_latency_s": 0.1, "camera_latency_s": 0.15}
    with in_process(PushTWorld, **options) as (_, ports):
        lags = {}
        for stamp in ("true", "arrival"):
            arm = SimArm(ports=ports, stamp=stamp, silent_s=30.0)
            arm.open()
            camera = SimCamera(ports=ports, stamp=stamp)
            camera.open()
            ages = []
            for _ in range(10):
                frame = camera.grab(5.0)
                assert frame is not None
                now_s = time.monotonic()
                ages.append((now_s - arm.read().time_s, now_s - frame.time_s))
            lags[stamp] = np.median(ages, axis=0)
            arm.close()
            camera.close()
        state_s, camera_s = lags["true"] - lags["arrival"]
        assert state_s == pytest.approx(0.1, abs=0.07)
        assert camera_s == pytest.approx(0.15, abs=0.07)


def test_shapes_are_known_before_anything_is_opened() -> None:
    with WorldMemory(PushTWorld(image_px=128)) as memory:
        assert SimCamera(ports=memory.ports).shape == (128, 128, 3)
        assert SimArm(ports=memory.ports).space.size == 2
