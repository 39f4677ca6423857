"""The MuJoCo arm: its tool goes where it is told, pushes the block home, and cameras see it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec

import numpy as np
import pytest
from world_help import Bench, bench, in_process, wait_for

from dp_hub.errors import ConfigError, RobotError
from dp_hub.robot.devices.sim_arm import SimArm
from dp_hub.robot.devices.sim_arm_camera import SimArmCamera
from dp_hub.robot.space import POSE, joints
from dp_hub.robot.worlds.control import Request, WorldControl
from dp_hub.robot.worlds.mujoco_arm import MujocoArmWorld, overlap, start_state
from dp_hub.robot.worlds.mujoco_model import HOME, load_model, load_mujoco
from dp_hub.robot.worlds.ports import WorldMemory

pytestmark = pytest.mark.skipif(not find_spec("mujoco"), reason="mujoco is not installed")
START = np.array([0.32, 0.0, 0.02, 0.0, 0.0, 0.0])


@pytest.fixture(scope="module")
def drawn() -> None:
    """Skips where nothing can draw without a display."""
    mujoco = load_mujoco()
    try:
        mujoco.Renderer(load_model(mujoco), 16, 16).close()
    except (AttributeError, ImportError, RuntimeError, mujoco.FatalError) as error:
        pytest.skip(f"MuJoCo cannot draw here (libegl1 or libosmesa6 would do): {error}")


@pytest.fixture
def arm() -> Iterator[Bench]:
    with bench(MujocoArmWorld, seed=5) as one:
        yield one


def off(x: float = 0.0, y: float = 0.0, z: float = 0.0, turn: float = 0.0) -> np.ndarray:
    """A pose beside that at home."""
    return START + np.array([x, y, z, 0.0, 0.0, turn])


def walk(arm: Bench, to: np.ndarray, seconds: float, rate_hz: float = 125.0) -> None:
    """Lead the tool to a pose along a straight line, the target renewed at ``rate_hz``."""
    begin = arm.newest("state", "position")
    n = round(seconds * rate_hz)
    for i in range(1, n + 1):
        arm.send(begin + (to - begin) * i / n)
        arm.tick(round(1 / rate_hz / arm.world.period_s))


def test_the_tool_follows_poses_within_millimetres(arm: Bench) -> None:
    for x, y, z, turn in ((0.5, 0.2, 0.1, 0.0), (0.6, -0.25, 0.15, 0.8), (0.35, 0.0, 0.3, -0.5)):
        wanted = np.array([x, y, z, 0.1, -0.1, turn])
        walk(arm, wanted, 1.0)
        arm.tick(150)
        assert np.abs(arm.newest("state", "position") - wanted).max() < 2e-3


def test_an_arm_told_nothing_stays_at_home(arm: Bench) -> None:
    arm.tick(500)
    assert np.abs(arm.newest("state", "joints") - HOME).max() < 1e-3
    assert np.abs(arm.newest("state", "pose") - START).max() < 2e-3


def test_a_pose_out_of_reach_is_approached_at_bounded_joint_speeds(arm: Bench) -> None:
    arm.send([3.0, 1.0, 0.5, 0.0, 0.0, 0.0])
    fastest = 0.0
    for _ in range(100):
        arm.tick(10)
        fastest = max(fastest, float(np.abs(arm.newest("state", "joint_velocity")).max()))
    assert fastest < 6
    assert np.isfinite(arm.newest("state", "position")).all()
    assert np.hypot(*arm.newest("state", "position")[:2]) > 0.7


def test_joints_are_followed_where_the_world_is_told_so() -> None:
    with bench(MujocoArmWorld, control="joints") as arm:
        wanted = np.add(HOME, (0.3, -0.1, 0.1, 0.0, 0.2, -0.4))
        walk(arm, wanted, 1.0)
        arm.tick(250)
        assert np.abs(arm.newest("state", "position") - wanted).max() < 3e-3


def test_pushing_the_block_home_succeeds(arm: Bench) -> None:
    arm.tick(1, Request("reset_to", state=np.array([0.5, 0.0, 0.0])))
    assert arm.truth()["overlap"] == 0
    walk(arm, off(x=0.12), 1.0)
    walk(arm, off(x=0.22), 2.0)
    truth = arm.truth()
    assert (truth["success"], truth["over"]) == (1, 1)
    assert truth["max_reward"] == 1
    assert truth["distance_m"] < 0.01
    assert truth["steps"] >= 29


def test_start_states_come_from_the_seed_and_are_not_at_the_goal(arm: Bench) -> None:
    assert arm.newest("state", "block") == pytest.approx(start_state(5))
    arm.tick(1, Request("reset", seed=8))
    assert arm.newest("state", "block") == pytest.approx(start_state(8))
    starts = np.array([start_state(seed) for seed in range(200)])
    assert len(np.unique(starts[:, 0])) == 200
    assert max(overlap(*start) for start in starts) < 0.5
    assert overlap(0.6, 0.0, np.pi) == 1
    assert overlap(0.6, 0.0, np.pi / 2) == pytest.approx(0.6)
    assert overlap(0.65, 0.0, 0.0) == pytest.approx(0.5)


def test_the_same_targets_give_the_same_bits(arm: Bench) -> None:
    walk(arm, off(x=0.2, y=0.05, turn=0.3), 1.0)
    with bench(MujocoArmWorld, seed=5) as again:
        walk(again, off(x=0.2, y=0.05, turn=0.3), 1.0)
        for name in ("joints", "block"):
            assert arm.newest("state", name).tolist() == again.newest("state", name).tolist()


@pytest.mark.usefixtures("drawn")
def test_both_cameras_see_the_block_where_it_is() -> None:
    with in_process(MujocoArmWorld, camera_hz=10) as (worker, ports):
        control = WorldControl(ports)
        seen = {}
        for place in (0.1, -0.1):
            began_s = control.reset(state=np.array([0.5, place, 0.0]))
            for view in ("front", "wrist"):
                camera = SimArmCamera(ports=ports, view=view, width=96, height=72)
                camera.open()
                frame = camera.grab(5.0)
                assert frame is not None and frame.time_s >= began_s
                assert frame.picture.shape == camera.shape == (72, 96, 3)
                assert frame.picture.dtype == np.uint8
                seen[view, place] = red_at(frame.picture)
                camera.close()
        # The front camera looks back at the arm: the base's y points right in its pictures.
        assert seen["front", 0.1] > 48 > seen["front", -0.1]
        assert seen["wrist", 0.1] < 48 < seen["wrist", -0.1]
        worker.check()
        control.close()


def red_at(picture: np.ndarray) -> float:
    """Mean column of what is red, as only the block is."""
    r, g, b = (picture[..., i].astype(int) for i in range(3))
    columns = np.nonzero((r > 1.7 * g) & (r > 1.7 * b) & (r > 60))[1]
    assert len(columns) > 15
    return float(columns.mean())


def test_an_arm_in_its_process_is_led_by_the_tools_pose() -> None:
    with in_process(MujocoArmWorld) as (worker, ports):
        arm = SimArm(ports=ports, silent_s=30.0)
        assert arm.space == POSE
        arm.open()
        arm.send(off(x=0.05, y=0.1, z=0.05))
        wait_for(lambda: abs(arm.read().values["position"][1] - 0.1) < 0.003)
        arm.hold()
        arm.stop()
        arm.send(START)
        stopped = arm.read().values["position"]
        wait_for(lambda: WorldControl(ports).truth()["elapsed_s"] > 0.5)
        assert np.abs(arm.read().values["position"] - stopped).max() < 0.02
        worker.check()
        arm.close()


def test_the_arms_space_is_what_its_world_takes() -> None:
    with WorldMemory(MujocoArmWorld(control="joints")) as memory:
        assert SimArm(ports=memory.ports).space == joints(6)


def test_where_nothing_can_draw_a_sentence_says_what_to_install() -> None:
    code = (
        "from dp_hub.robot.worlds.mujoco_arm import MujocoArmWorld as W\n"
        "from dp_hub.robot.worlds.ports import WorldMemory\n"
        "from dp_hub.robot.devices.sim_arm_camera import SimArmCamera\n"
        "from dp_hub.errors import RobotError\n"
        "with WorldMemory(W()) as memory:\n"
        "    try:\n"
        "        SimArmCamera(ports=memory.ports).open()\n"
        "    except RobotError as error:\n"
        "        print(error)\n"
    )
    env = os.environ | {"MUJOCO_GL": "disable"}
    told = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert "cannot draw here without a display" in told.stdout, told.stderr
    assert sys.platform != "linux" or "apt-get install" in told.stdout


def test_pictures_too_large_to_draw_are_refused() -> None:
    with (
        WorldMemory(MujocoArmWorld()) as memory,
        pytest.raises(ConfigError, match="1280 x 960"),
    ):
        SimArmCamera(ports=memory.ports, width=4000)
    with pytest.raises(RobotError, match="no ring"):
        SimArmCamera(ports=type(memory.ports)())
