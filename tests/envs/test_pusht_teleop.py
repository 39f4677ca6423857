"""Recording by hand, with a hand of pygame events and a clock that does not wait."""

from collections.abc import Callable

import numpy as np
import pygame
import pytest

from dp_hub.envs.pusht.expert import Expert, ExpertConfig
from dp_hub.envs.pusht.physics import PushTPhysics
from dp_hub.envs.pusht.teleop import Window, record_by_hand
from dp_hub.errors import DataError
from dp_hub.replay.buffer import ReplayWriter, open_replay

Event = pygame.event.Event


class Person:
    """A clock whose every tick lets a script of event lists go on."""

    def __init__(self, script) -> None:
        self._script = iter(script)
        self.ticks, self.rates = 0, set()

    def tick(self, rate_hz: float) -> None:
        self.ticks += 1
        self.rates.add(rate_hz)
        assert self.ticks < 2000, "the session does not end"
        for event in next(self._script, [key(pygame.K_q)]):
            pygame.event.post(event)


def key(code: int, kind: int = pygame.KEYDOWN) -> Event:
    return Event(kind, key=code)


def move(x: float, y: float) -> Event:
    return Event(pygame.MOUSEMOTION, pos=(round(x), round(y)))


def click(x: float, y: float) -> Event:
    return Event(pygame.MOUSEBUTTONDOWN, pos=(round(x), round(y)), button=1)


def push_home(seed: int):
    """Events of a person who does what the demonstrator does, on whole pixels."""
    table = PushTPhysics()
    table.reset(seed)
    yield [click(table.agent_x, table.agent_y)]
    table.step(round(table.agent_x), round(table.agent_y))
    expert = Expert(ExpertConfig(), rng=np.random.default_rng(0))
    target = np.array((table.agent_x, table.agent_y))
    while True:
        plan = expert.plan(np.array((table.agent_x, table.agent_y)), target, table.block_pose())
        for target in np.round([*plan.walk, *plan.shove]):
            yield [move(*target)]
            table.step(*target)
            if table.coverage() > 0.95:
                return


@pytest.fixture
def session(tmp_path) -> Callable[..., tuple[int, Person]]:
    def run(script, *, name: str = "hand.zarr", **options) -> tuple[int, Person]:
        pygame.display.init()
        pygame.event.clear()
        person = Person(script)
        window = Window(clock=person)
        try:
            return record_by_hand(tmp_path / name, window, **options), person
        finally:
            window.close()

    return run


def test_a_finished_episode_is_saved_as_the_originals(session, tmp_path):
    n, person = session(push_home(0), n_episodes=1)
    assert n == 1
    assert person.rates == {10}
    replay = open_replay(tmp_path / "hand.zarr")
    assert {key: (replay.shape(key), str(replay.dtype(key))) for key in sorted(replay.keys())} == {
        "state": ((5,), "float32"),
        "keypoint": ((9, 2), "float32"),
        "action": ((2,), "float32"),
        "n_contacts": ((1,), "float32"),
        "img": ((96, 96, 3), "uint8"),
    }
    assert replay.read("n_contacts", 0, replay.n_steps).max() >= 1


def test_replaying_an_episode_by_hand_gives_its_states_and_brings_the_t_home(session, tmp_path):
    session(push_home(0), n_episodes=1)
    replay = open_replay(tmp_path / "hand.zarr")
    table = PushTPhysics()
    table.reset(0)
    rows = (replay.read(key, 0, replay.n_steps) for key in ("state", "action"))
    for state, action in zip(*rows, strict=True):
        np.testing.assert_array_equal(table.state().astype(np.float32), state)
        table.step(float(action[0]), float(action[1]))
    assert table.coverage() > 0.95


def test_nothing_is_recorded_before_a_click_near_the_agent(session, tmp_path):
    agent_x, agent_y = _agent(0)
    n, _ = session([[move(agent_x, agent_y)], [click(agent_x + 31, agent_y)], [move(5, 5)]])
    assert n == 0
    assert len(open_ends(tmp_path)) == 0


def test_the_next_session_continues_with_the_next_seed(session, tmp_path):
    assert session(push_home(5), seed=5, n_episodes=1)[0] == 1
    assert session(push_home(6), seed=5, n_episodes=2)[0] == 2
    replay = open_replay(tmp_path / "hand.zarr")
    first = replay.read("state", int(replay.episode_ends[0]), int(replay.episode_ends[0]) + 1)[0]
    table = PushTPhysics()
    table.reset(6)
    np.testing.assert_array_equal(first, table.state().astype(np.float32))


def test_quitting_drops_the_unfinished_episode(session, tmp_path):
    script = list(push_home(0))[:20]
    assert session([*script, [key(pygame.K_q)]])[0] == 0
    assert len(open_ends(tmp_path)) == 0


def test_closing_the_window_quits(session):
    n, person = session([[], [Event(pygame.QUIT)]])
    assert (n, person.ticks) == (0, 2)


def test_retry_starts_the_episode_again(session, tmp_path):
    script = list(push_home(0))
    n, _ = session([*script[:30], [key(pygame.K_r)], *script], n_episodes=1)
    assert n == 1
    assert int(open_ends(tmp_path)[0]) == len(script)


def test_space_pauses_and_no_time_is_recorded(session, tmp_path):
    script = list(push_home(0))
    hold = [[key(pygame.K_SPACE)], [move(20, 20)], [move(30, 400)]]
    back = [[key(pygame.K_SPACE, pygame.KEYUP), *script[30]]]
    n, _ = session([*script[:30], *hold, *back, *script[31:]], n_episodes=1)
    assert n == 1
    assert int(open_ends(tmp_path)[0]) == len(script)


def test_a_folder_with_other_arrays_is_refused_before_anyone_drives(session, tmp_path):
    ReplayWriter(tmp_path / "other.zarr").add_episode({"action": np.zeros((3, 2), np.float32)})
    with pytest.raises(DataError, match=r"other\.zarr holds action"):
        session([], name="other.zarr")


def test_a_folder_begun_with_another_seed_is_refused(session):
    session(push_home(0), n_episodes=1)
    with pytest.raises(DataError, match="--seed 0, not 7"):
        session([], seed=7)


def _agent(seed: int) -> tuple[float, float]:
    table = PushTPhysics()
    table.reset(seed)
    return table.agent_x, table.agent_y


def open_ends(tmp_path) -> np.ndarray:
    import zarr

    return np.asarray(zarr.open_array(tmp_path / "hand.zarr" / "meta" / "episode_ends", mode="r"))
