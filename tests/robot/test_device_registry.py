"""Devices are found by name, listed without being imported, and take only their own options."""

import multiprocessing
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dp_hub.errors import ConfigError, RobotError
from dp_hub.robot.devices.registry import (
    ARMS,
    CAMERAS,
    GROUPS,
    TELEOPS,
    DeviceCall,
    device_call,
    known,
    load_device,
)

ROOT = Path(__file__).resolve().parents[2]
OURS = {ARMS: {"ur"}, CAMERAS: {"realsense", "video_file", "webcam"}}
OURS |= {TELEOPS: {"gamepad", "keyboard", "spacemouse"}}

Install = Callable[[str, str, str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """``install(package, entry points, source)``: as pip would, in a folder of its own."""

    def made(package: str, entries: str, source: str) -> None:
        site = tmp_path / package
        info = site / f"{package}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(entries)
        (site / f"{package}.py").write_text(source)
        monkeypatch.syspath_prepend(str(site))

    yield made
    for name in [name for name in sys.modules if name.startswith("made_")]:
        del sys.modules[name]


def test_our_devices_are_listed_with_options_and_what_they_need():
    needs = {}
    for group, names in OURS.items():
        listed = known(group)
        assert names <= set(listed)
        for name in names:
            assert listed[name].summary and listed[name].options, name
            needs[name] = listed[name].install
    assert needs == {
        "ur": "dp_hub[ur]",
        "realsense": "dp_hub[realsense]",
        "webcam": "dp_hub[webcam]",
        "spacemouse": "dp_hub[spacemouse]",
        "video_file": None,
        "keyboard": None,
        "gamepad": None,
    }
    assert "control=pose|joints" in known(ARMS)["ur"].options
    for name in ("ur", "realsense", "webcam", "spacemouse"):
        [about] = [known(group)[name] for group in OURS if name in known(group)]
        assert "not tried on hardware" in about.summary


def test_making_and_listing_devices_imports_no_hardware_library_and_little_else():
    code = (
        "import sys\n"
        "from dp_hub.robot.devices.registry import GROUPS, device_call, known\n"
        "for group in GROUPS: known(group)\n"
        "device_call('dp_hub.arms', 'ur', {'host': '127.0.0.1'}).make()\n"
        "device_call('dp_hub.cameras', 'webcam').make()\n"
        "device_call('dp_hub.cameras', 'realsense').make()\n"
        "device_call('dp_hub.cameras', 'video_file', {'path': 'x.mp4'}).make()\n"
        "for name in ('keyboard', 'gamepad', 'spacemouse'):\n"
        "    device_call('dp_hub.teleops', name).make()\n"
        "heavy = {'torch', 'av', 'cv2', 'pygame', 'hid', 'pyrealsense2', 'rtde_control', 'zarr'}\n"
        "print(sorted({m.partition('.')[0] for m in sys.modules} & heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_an_unknown_option_is_refused_with_the_nearest_one():
    with pytest.raises(ConfigError) as caught:
        device_call(ARMS, "ur", {"host": "10.0.0.2", "lookahed_s": 0.1}, where="lab.yaml")
    assert caught.value.message == "the arm 'ur' in lab.yaml has no option 'lookahed_s'"
    assert str(caught.value.hint).startswith("did you mean `lookahead_s`? it has: host=<text>, ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "needs the option host"),
        ({"host": 5}, "the option host of the arm 'ur' cannot be 5"),
        ({"host": "a", "rate_hz": "fast"}, "the option rate_hz of the arm 'ur' cannot be 'fast'"),
        ({"host": "a", "control": "speed"}, "cannot be 'speed'"),
        ({"host": "a", "tcp": [0, 0, 0.1]}, "the option tcp .* cannot be"),
        ({"host": "a", "gain": 5}, "gain of a UR arm is 5: from 100 to 2000 is possible"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_before_anything_is_opened(options, message):
    with pytest.raises(ConfigError, match=message):
        device_call(ARMS, "ur", options)


def test_a_call_is_checked_once_pickled_and_made_elsewhere():
    options = {"host": "10.0.0.2", "tcp": [0, 0, "0.1", 0, 0, 0], "rate_hz": 500}
    ours, its = multiprocessing.Pipe()
    its.send(device_call(ARMS, "ur", options))
    call = ours.recv()
    assert call.options == {"host": "10.0.0.2", "tcp": (0, 0, 0.1, 0, 0, 0), "rate_hz": 500.0}
    assert call.make().space.names == ("x", "y", "z", "rx", "ry", "rz")


def test_a_mapping_is_checked_inside():
    layout = {"layout": {"z": "+b3-b0"}, "buttons": {"takeover": "7"}}
    assert device_call(TELEOPS, "gamepad", layout).options["buttons"] == {"takeover": 7}
    with pytest.raises(ConfigError, match="cannot be"):
        device_call(TELEOPS, "gamepad", {"buttons": {"takeover": "seven"}})
    with pytest.raises(ConfigError, match="cannot be"):
        device_call(TELEOPS, "gamepad", {"layout": "z"})


def test_an_unknown_name_is_refused_with_the_nearest_one():
    with pytest.raises(ConfigError, match="there is no camera called 'webcan'") as caught:
        device_call(CAMERAS, "webcan")
    assert "did you mean `webcam`? installed cameras: " in str(caught.value.hint)


ONE = "class One:\n    summary = 'made up'\n    def __init__(self, *, size: int = 3): ...\n"


def test_two_packages_with_one_name_are_refused(install):
    for package in ("made_a", "made_b"):
        install(package, f"[dp_hub.arms]\nmade-arm = {package}:One\n", ONE)
    with pytest.raises(ConfigError, match=r"2 arms called 'made-arm': in made_a .* and made_b"):
        device_call(ARMS, "made-arm")


def test_a_missing_library_is_told_with_the_line_that_installs_it(install):
    entries = "[dp_hub.arms]\nmade-lost = made_lost:One [servo]\nmade-gone = made_lost:Gone\n"
    install("made_lost", entries, "import no_such_library\n" + ONE)
    with pytest.raises(RobotError, match="No module named 'no_such_library'") as caught:
        device_call(ARMS, "made-lost")
    assert caught.value.hint == 'pip install "made_lost[servo]"'
    with pytest.raises(RobotError, match="cannot be loaded"):
        load_device(ARMS, "made-gone")


def test_a_device_of_a_world_gets_the_ports_and_cannot_be_made_without(install):
    source = "class Sim:\n    def __init__(self, *, ports, size: int = 3): self.ports = ports\n"
    install("made_sim", "[dp_hub.arms]\nmade-sim = made_sim:Sim\n", source)
    call = device_call(ARMS, "made-sim", {"size": 4})
    assert call == DeviceCall(ARMS, "made-sim", {"size": 4})
    assert known(ARMS)["made-sim"].options == ("size=<int>",)
    with pytest.raises(RobotError, match="belongs to a simulated world"):
        call.make()
    assert call.make("ports").ports == "ports"
    with pytest.raises(ConfigError, match="has no option 'ports'"):
        device_call(ARMS, "made-sim", {"ports": 1})


def example() -> tuple[str, str]:
    """The device of one's own in the documentation: its module and its pyproject.toml."""
    pages = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))]
    blocks = re.findall(r"^```(\w+)\n(.*?)^```", "\n".join(pages), flags=re.DOTALL | re.MULTILINE)
    [module] = [text for kind, text in blocks if kind == "python" and "class Slider" in text]
    [project] = [text for kind, text in blocks if kind == "toml" and "my_slider" in text]
    return module, project


SDK = """
class Axis:
    def __init__(self, port): self.mm = 0.0
    def move_to(self, mm): self.mm = mm
    def where(self): return self.mm
    def halt(self): pass
    def disconnect(self): pass
"""
"""In place of the vendor's library, which moves at once."""


def test_the_device_of_ones_own_in_the_documentation_works_when_installed(install):
    module, project = example()
    points = tomllib.loads(project)["project"]["entry-points"]
    assert set(points) <= set(GROUPS)
    lines = [
        line
        for group, entries in points.items()
        for line in (f"[{group}]", *(f"{name} = {value}" for name, value in entries.items()))
    ]
    install("my_slider_sdk", "", SDK)
    install("my_slider", "\n".join(lines), module)
    about = known(ARMS)["slider"]
    assert about.summary and about.package == "my_slider"
    with pytest.raises(ConfigError, match="has no option 'tavel_m'"):
        device_call(ARMS, "slider", {"tavel_m": 1})
    arm = device_call(ARMS, "slider", {"port": "/dev/ttyUSB0", "travel_m": 0.5}).make()
    arm.open()
    assert arm.space.names == ("x",)
    arm.send(np.array([0.2]))
    reading = arm.read()
    assert {field.name for field in arm.fields} == set(reading.values)
    assert all(reading.values[field.name].shape == field.shape for field in arm.fields)
    np.testing.assert_allclose(reading.values["position"], [0.2], atol=1e-3)
    arm.stop()
    arm.send(np.array([0.4]))
    np.testing.assert_allclose(arm.read().values["position"], [0.2], atol=1e-3)
    arm.close()
    for name in ("my_slider", "my_slider_sdk"):
        del sys.modules[name]
