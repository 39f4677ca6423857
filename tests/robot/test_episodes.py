"""Episodes: who drives, what keys do, and what the recorded dataset says of it afterwards."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from known_policy import INFO, Known
from session_help import on, without_cameras

from dp_hub.cli.robots import settle
from dp_hub.dataset.reader import open_dataset
from dp_hub.errors import RobotError
from dp_hub.robot.config import InferenceConfig, RobotConfig
from dp_hub.robot.devices.protocols import Hand
from dp_hub.robot.inference.info import Answer
from dp_hub.robot.keys.source import KeySource
from dp_hub.robot.keys.table import RECORD, ROLLOUT, Table
from dp_hub.robot.recording.process import RecorderProcess
from dp_hub.robot.session.driver import PolicyDriver
from dp_hub.robot.session.episodes import Crew, Episodes, Outcome, Wanted
from dp_hub.robot.session.hand import HandDriver
from dp_hub.robot.session.recording import recorder_job
from dp_hub.robot.session.session import Session


class Pressed:
    """Keys, each seconds after the one before; the first one after an episode could begin."""

    def __init__(self, *presses: tuple[float, str]) -> None:
        self._left = list(presses)
        self._since_s: float | None = None

    def read(self) -> list[str]:
        now_s = time.monotonic()
        if self._since_s is None:
            self._since_s = now_s
        if not self._left or now_s < self._since_s + self._left[0][0]:
            return []
        self._since_s = now_s
        return [self._left.pop(0)[1]]

    def close(self) -> None:
        pass


class Robot:
    """A session with a policy of known answers and the scripted demonstrator's hand."""

    def __init__(self, session: Session, policy: Known, hand: HandDriver) -> None:
        self.session, self.policy, self.hand = session, policy, hand
        self.said: list[str] = []

    def run(
        self,
        *presses: tuple[float, str],
        table: Table = ROLLOUT,
        recorder: Any = None,
        keys: KeySource | None = None,
        **wanted: Any,
    ) -> list[Outcome]:
        driver = None
        if table is ROLLOUT:
            how = InferenceConfig(give_up_s=0.5)
            driver = PolicyDriver(self.session, self.policy, how)  # type: ignore[arg-type]
        crew = Crew(keys or Pressed(*presses), table, driver, self.hand, recorder, self.said.append)
        self.ended: list[Outcome] = []
        self.loop = Episodes(self.session, crew, Wanted(**wanted), on_end=self.ended.append)
        return self.loop.run()


@contextmanager
def robot(config: RobotConfig | None = None) -> Iterator[Robot]:
    with on(config or without_cameras(), seed=None) as session:
        assert session.config.teleop is not None
        with HandDriver(session, session.config.teleop) as hand:
            yield Robot(session, Known(INFO), hand)


@contextmanager
def recorder(session: Session, to: Path, **options: bool) -> Iterator[RecorderProcess]:
    process = RecorderProcess(recorder_job(session, to, "none", source={}, **options))
    process.start_process()
    try:
        yield process
        settle(process)
        process.close()
    finally:
        process.kill()


def test_a_person_takes_over_and_hands_back_and_the_dataset_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asks() -> Hand:
        return Hand(time.monotonic(), target=np.array([50.0, 60.0]))

    with robot() as one:
        monkeypatch.setattr(one.hand._device, "read", asks)
        with recorder(one.session, tmp_path / "D", intervention=True) as process:
            [outcome] = one.run(
                (1.5, "h"), (1.5, "c"), (1.5, "s"),
                recorder=process, by_itself=True, seed=3, facts={"task": "push"},
            )  # fmt: skip
        assert outcome.ended == "key" and outcome.success is False and outcome.seed == 3
        assert 1.4 < outcome.by_hand_s < outcome.lasted_s - 1.4
    dataset = open_dataset(tmp_path / "D")
    assert dataset.n_episodes == 1
    marked = np.asarray(dataset.column("intervention")[:]).reshape(-1).astype(bool)
    turns = np.flatnonzero(np.diff(marked))
    assert len(turns) == 2 and not marked[0] and not marked[-1]
    assert marked.sum() == pytest.approx(outcome.by_hand_s * 10, abs=2)
    facts = dict(dataset.episodes.metadata[0])
    assert facts["ended"] == "key" and facts["seed"] == 3 and facts["success"] is False
    # The policy's targets are on one line (their sum is 500), the hand's are not.
    sums = np.asarray(dataset.column("action")[:]).sum(axis=1)
    assert np.abs(sums[~marked][3:] - 500).max() < 1 or np.median(np.abs(sums[~marked] - 500)) < 1
    assert np.median(np.abs(sums[marked] - 500)) > 1


def test_keys_say_success_failure_and_when_to_begin() -> None:
    with robot() as one:
        outcomes = one.run(
            (0.1, "c"), (0.5, "y"), (0.1, "c"), (0.5, "n"), (0.1, "h"), (0.5, "s"), (0.1, "q"),
            episodes=None, seed=7,
        )  # fmt: skip
        assert [(o.ended, o.success, o.seed, o.number) for o in outcomes] == [
            ("key", True, 7, 0), ("key", False, 8, 1), ("key", False, 9, 2),
        ]  # fmt: skip
        assert outcomes == one.ended
        assert outcomes[0].by_hand_s == 0
        assert outcomes[2].by_hand_s == pytest.approx(outcomes[2].lasted_s)
        assert one.session.state_of("arm") != "stopped"


def test_episodes_by_themselves_end_with_the_time_and_have_the_next_seeds() -> None:
    with robot() as one:
        outcomes = one.run(by_itself=True, episodes=3, seed=40, episode_s=0.6)
        assert [(o.ended, o.seed) for o in outcomes] == [("time", s) for s in (40, 41, 42)]
        assert all(o.lasted_s >= 0.6 and o.score is not None for o in outcomes)
        assert one.policy.seeds[0] == 40 * 100_000 and 41 * 100_000 in one.policy.seeds


def test_the_emergency_stop_ends_everything() -> None:
    with robot() as one:
        outcomes = one.run((0.8, "esc"), by_itself=True, episodes=None, seed=1)
        assert [o.ended for o in outcomes] == ["stopped"]
        assert one.session.stopped and one.said == ["emergency stop: every arm was stopped"]


def test_the_emergency_stop_works_while_the_policy_hangs_or_is_started() -> None:
    class Hangs(Known):
        def start(self) -> None:
            super().start()
            self.ready = False

    with robot() as one:
        one.policy = Hangs(delay_s=60.0)
        keys = Pressed((2.5, "esc"))
        outcomes = one.run(keys=keys, by_itself=True, episodes=None, seed=1)
        assert [o.ended for o in outcomes] == ["policy away"], "it was being started again"
        assert one.policy.starts == 1 and one.session.stopped
        assert any("not answered" in sentence for sentence in one.said)


def test_a_policy_that_cannot_be_started_again_is_an_error() -> None:
    class Gone(Known):
        def answer(self) -> Answer | None:
            raise RobotError("it was killed")

        def start(self) -> None:
            raise RobotError("its folder is gone")

    with robot() as one:
        one.policy = Gone()
        with pytest.raises(RobotError, match="its folder is gone"):
            one.run(by_itself=True, episodes=None, seed=1)
        assert [o.ended for o in one.loop.done] == ["policy away"]


def test_whoever_takes_over_from_a_policy_that_held_can_move() -> None:
    with robot() as one:
        one.policy.delay_s = 60.0  # it holds after 0.5 s, and the episode is over
        outcomes = one.run(
            (0.1, "c"), (2.0, "h"), (2.0, "s"), (0.1, "q"), episodes=None, seed=1
        )  # fmt: skip
        assert [o.ended for o in outcomes] == ["policy away", "key"]
        assert one.session.counts()["arm"]["plans"] > 5, "the hand's targets were refused"


def test_recording_starts_stops_drops_and_goes_on(tmp_path: Path) -> None:
    with robot() as one:
        with recorder(one.session, tmp_path / "D", stage=True) as process:
            outcomes = one.run(
                (0.1, "c"), (0.8, "space"), (0.8, "s"),  # kept
                (1.5, "c"), (0.8, "s"), (1.5, "backspace"), (0.1, "x"),  # once is not enough
                (0.1, "backspace"), (0.1, "backspace"),  # dropped
                (0.5, "c"), (0.8, "backspace"), (0.1, "backspace"),  # dropped on the way
                (0.5, "c"), (1.0, "s"),  # kept
                (0.5, "c"), (0.5, "q"),  # given up
                table=RECORD, recorder=process, episodes=None, seed=20,
            )  # fmt: skip
        assert [(o.seed, o.ended) for o in outcomes] == [(20, "key"), (21, "key")]
        assert one.said.count("drop the last? press backspace again") >= 2
        assert "the episode is dropped" in one.said and "stage 1" in one.said
    dataset = open_dataset(tmp_path / "D")
    assert [dict(facts)["seed"] for facts in dataset.episodes.metadata] == [20, 21]
    first = slice(int(dataset.episodes.starts[0]), int(dataset.episodes.stops[0]))
    stages = np.asarray(dataset.column("stage")[first]).reshape(-1)
    assert (np.diff(stages) >= 0).all() and set(stages.tolist()) == {0, 1}


def test_without_a_teleop_nobody_takes_over() -> None:
    with on(without_cameras(teleop=None), seed=None) as session:
        said: list[str] = []
        driver = PolicyDriver(session, Known(INFO), InferenceConfig())  # type: ignore[arg-type]
        crew = Crew(Pressed((0.3, "h"), (0.3, "s")), ROLLOUT, driver, say=said.append)
        [outcome] = Episodes(session, crew, Wanted(by_itself=True, seed=1)).run()
    assert said == ["nobody can take over: the robot's configuration has no `teleop`"]
    assert outcome.by_hand_s == 0


def test_recorded_frames_are_of_their_times(tmp_path: Path) -> None:
    from dp_hub.robot.recording.reading import read_raw

    to, raw = tmp_path / "D", tmp_path / "raw"
    with robot() as one:
        process = RecorderProcess(recorder_job(one.session, to, str(raw), source={}))
        process.start_process()
        try:
            one.run(table=RECORD, recorder=process, by_itself=True, seed=5, episode_s=4.0)
            process.close()  # at once: an episode that is over is kept all the same
        finally:
            process.kill()
    dataset = open_dataset(to)
    [folder] = [path for path in raw.iterdir() if path.is_dir()]
    recording = read_raw(folder)
    state = recording.streams["arm/state"]
    shown = np.asarray(dataset.column("observation.state")[:])
    start_s = dict(dataset.episodes.metadata[0])["start_s"]
    for i, row in enumerate(shown):  # each is what was measured nearest to its time
        off_s = np.abs(state.times_s - start_s - i / 10)
        nearest = np.asarray(state.values)[off_s <= off_s.min() + 1e-6]
        assert any(np.array_equal(row, one) for one in nearest), (i, off_s.min())
    assert len(shown) >= 40
