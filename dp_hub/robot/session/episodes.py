"""Episodes of a robot: who drives, what keys do, when an episode is over, what is recorded of it.

`dp-hub record` and `dp-hub rollout` are this loop with other drivers. Nothing in it waits for a
policy, a disk or a window, so that the emergency stop works whatever they do.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from dp_hub.errors import RobotError
from dp_hub.robot.clock import ticks
from dp_hub.robot.keys.source import KeySource
from dp_hub.robot.keys.table import Does, Keys, Table, keys_line
from dp_hub.robot.session.driver import PolicyAway, PolicyDriver
from dp_hub.robot.session.hand import HandDriver
from dp_hub.robot.session.session import Session

if TYPE_CHECKING:
    from dp_hub.robot.view.live import LiveView

log = logging.getLogger(__name__)

Mode = Literal["waits", "policy", "person"]
Ended = Literal["success", "time", "key", "late", "policy away", "stopped"]
_LOOP_S = 0.005


class RecordsEpisodes(Protocol):
    """A recorder, as `dp_hub.robot.recording.process.RecorderProcess`."""

    def start(self, start_s: float, facts: Mapping[str, Any] | None = None) -> Any: ...
    def mark(self, event: str, value: Any, time_s: float) -> None: ...
    def stop(self, stop_s: float, facts: Mapping[str, Any] | None = None) -> None: ...
    def give_up(self) -> None: ...
    def drop_last(self) -> Any: ...
    def told(self) -> list[str]: ...
    def check(self) -> None: ...


@dataclass(frozen=True)
class Outcome:
    """One episode.

    Args:
        number: from 0.
        seed: of a simulated start state.
        ended: why.
        success: as the simulation or the person says; None: nobody said.
        score: the simulation's highest reward; None without one.
        steps: of the simulation, or periods.
        lasted_s: from its beginning to its end.
        by_hand_s: of that, a person drove.
    """

    number: int
    seed: int | None
    ended: Ended
    success: bool | None
    score: float | None
    steps: int
    lasted_s: float
    by_hand_s: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return dict(vars(self))


@dataclass
class _Running:
    """The episode under way."""

    number: int
    seed: int | None
    start_s: float
    stage: int = 0
    by_hand_s: float = 0.0
    hand_since_s: float | None = None


@dataclass
class Crew:
    """Who drives and who looks on.

    Args:
        keys: a person's.
        table: what they mean.
        policy: that drives; None: only a person does.
        hand: a person's; None: only the policy drives.
        recorder: of episodes, if they are recorded.
        say: tells the person a sentence.
        view: a live view, told how it stands; its keys come with the others.
    """

    keys: KeySource
    table: Table
    policy: PolicyDriver | None = None
    hand: HandDriver | None = None
    recorder: RecordsEpisodes | None = None
    say: Callable[[str], None] = log.info
    view: "LiveView | None" = None


@dataclass(frozen=True)
class Wanted:
    """Which episodes.

    Args:
        episodes: how many; None: until the person quits.
        seed: of the first simulated start state; the next ones have the next seeds. None: a
            simulation goes on where it is.
        by_itself: an episode begins without a key, as simulations can be reset.
        episode_s: the longest.
        facts: stored with every recorded episode.
    """

    episodes: int | None = 1
    seed: int | None = None
    by_itself: bool = False
    episode_s: float = 60.0
    facts: Mapping[str, Any] = field(default_factory=dict)


class Episodes:
    """Runs episodes, one after the other.

    Args:
        session: on.
        crew: who drives.
        wanted: which episodes.
        on_end: called with each.
    """

    def __init__(
        self,
        session: Session,
        crew: Crew,
        wanted: Wanted,
        *,
        on_end: Callable[[Outcome], None] | None = None,
    ) -> None:
        self._session, self._crew, self._wanted = session, crew, wanted
        self._keys = Keys(crew.table)
        self._on_end = on_end
        self._mode: Mode = "waits"
        self._episode: _Running | None = None
        self._quit = False
        self._calls: Mode | None = None  # who is to drive as soon as it can be
        self.done: list[Outcome] = []

    def run(self) -> list[Outcome]:
        """All of them.

        Raises:
            RobotError: a process of the robot failed, or the policy is away for good. The robot
                holds or is stopped, and what was recorded before the episode is kept.
        """
        session = self._session
        try:
            for _ in ticks(_LOOP_S, session.clock):
                session.beat()
                session.check()
                self._read_keys()
                if self._quit or self._all_done:
                    break
                self._go_on()
        finally:
            session.hold()
            if self._episode is not None:
                self._give_up()
        return self.done

    @property
    def _all_done(self) -> bool:
        wanted = self._wanted.episodes
        return self._episode is None and wanted is not None and len(self.done) >= wanted

    def _go_on(self) -> None:
        """What is to be done in one turn beside keys."""
        crew, now_s = self._crew, self._session.clock.now_s()
        if crew.recorder is not None:
            crew.recorder.check()
            for sentence in crew.recorder.told():
                crew.say(sentence)
        if self._episode is None and self._wanted.by_itself and self._calls is None:
            self._call("policy" if crew.policy is not None else "person")
        self._answer_call(now_s)
        if self._episode is None:
            if crew.view is not None:
                crew.view.show([self._waiting_line(), keys_line(crew.table)])
            return
        try:
            if self._mode == "policy" and crew.policy is not None and not crew.policy.step():
                self._end("late")
                return
        except PolicyAway as away:
            crew.say(str(away))
            self._end("policy away")
            return
        if self._mode == "person" and crew.hand is not None:
            crew.hand.step()
        self._show(now_s - self._episode.start_s)
        self._look_whether_it_is_over(now_s)

    def _show(self, since_s: float) -> None:
        """How it stands, in the live view."""
        if self._crew.view is None:
            return
        assert self._episode is not None
        drives = {"waits": "nobody drives", "policy": "the policy drives", "person": "by hand"}
        stage = f", stage {self._episode.stage}" if self._episode.stage else ""
        line = f"episode {self._episode.number}, {since_s:.1f} s: {drives[self._mode]}{stage}"
        self._crew.view.show([line, keys_line(self._crew.table)])

    def _look_whether_it_is_over(self, now_s: float) -> None:
        assert self._episode is not None
        truth = self._session.world.truth() if self._session.world else {}
        if truth.get("success"):
            self._end("success")
        elif truth.get("over") or now_s - self._episode.start_s >= self._wanted.episode_s:
            self._end("time")

    def _read_keys(self) -> None:
        for key in self._crew.keys.read():
            now_s = self._session.clock.now_s()
            self._mark("key", key, now_s)
            does = self._keys.pressed(key, now_s)
            question = self._keys.question(now_s)
            if question:
                self._crew.say(question)
            if does is not None:
                self._do(does, now_s)

    def _do(self, does: Does, now_s: float) -> None:
        match does:
            case Does.EMERGENCY:
                self._session.stop()
                self._crew.say("emergency stop: every arm was stopped")
                if self._episode is not None:
                    self._end("stopped")
                self._quit = True
            case Does.QUIT:
                self._quit = True
            case Does.GO_ON if self._crew.policy is not None:
                self._call("policy")
            case Does.START | Does.TAKE_OVER if does is Does.TAKE_OVER or self._episode is None:
                self._call("person")
            case Does.DROP:
                self._drop()
            case _ if self._episode is not None:
                self._act(does, now_s)

    def _act(self, does: Does, now_s: float) -> None:
        """What can be done during an episode only."""
        assert self._episode is not None
        match does:
            case Does.STOP | Does.END:
                self._end("key")
            case Does.SUCCESS:
                self._end("key", success=True)
            case Does.FAILURE:
                self._end("key", success=False)
            case Does.STAGE:
                self._episode.stage += 1
                self._mark("stage", self._episode.stage, now_s)
                self._crew.say(f"stage {self._episode.stage}")
            case _:
                return

    def _call(self, who: Mode) -> None:
        """Let somebody drive as soon as it can be: a policy that was away is started first."""
        if who == "person" and self._crew.hand is None:
            self._crew.say("nobody can take over: the robot's configuration has no `teleop`")
            return
        if who == "policy" and not self._is_ready():
            self._crew.say("the policy is being started again; it drives when it is there")
        self._calls = who

    def _is_ready(self) -> bool:
        assert self._crew.policy is not None
        return self._crew.policy.ready()

    def _answer_call(self, now_s: float) -> None:
        if self._calls is None or (self._calls == "policy" and not self._is_ready()):
            return
        who, self._calls = self._calls, None
        if self._episode is None:
            self._begin(who)
        elif who != self._mode:
            self._hand_over(who, now_s)

    def _waiting_line(self) -> str:
        return "waits for a key" if self._calls is None else "waits for the policy"

    def _begin(self, who: Mode) -> None:
        """Start an episode: reset a simulation, record, let somebody drive."""
        crew, number = self._crew, len(self.done)
        seed = None if self._wanted.seed is None else self._wanted.seed + number
        if seed is not None and self._session.world is not None:
            self._session.reset(seed)
        else:
            self._session.forget()
        now_s = self._session.clock.now_s()
        self._episode = _Running(number, seed, now_s)
        if crew.recorder is not None:
            known = {} if seed is None else {"seed": seed}
            crew.recorder.start(now_s, {**self._wanted.facts, **known})
        self._hand_over(who, now_s)

    def _hand_over(self, who: Mode, now_s: float) -> None:
        """Another one drives from now on."""
        crew, episode = self._crew, self._episode
        assert episode is not None
        if crew.policy is not None:
            crew.policy.pause()
        if crew.hand is not None:
            crew.hand.pause()
        self._session.resume()  # who drove before may have held
        if episode.hand_since_s is not None:
            episode.by_hand_s += now_s - episode.hand_since_s
        episode.hand_since_s = now_s if who == "person" else None
        if who == "policy" and crew.policy is not None:
            crew.policy.start(seed=episode.seed)
        if who == "person" and crew.hand is not None:
            crew.hand.start()
        if crew.policy is not None:
            self._mark("intervention", who == "person", now_s)
        self._mode = who

    def _mark(self, event: str, value: Any, now_s: float) -> None:
        if self._crew.recorder is not None:
            self._crew.recorder.mark(event, value, now_s)

    def _end(self, ended: Ended, *, success: bool | None = None) -> None:
        """The episode is over and is kept."""
        episode, crew = self._episode, self._crew
        assert episode is not None
        now_s = self._session.clock.now_s()
        self._rest()
        if episode.hand_since_s is not None:
            episode.by_hand_s += now_s - episode.hand_since_s
        outcome = self._outcome(episode, ended, success, now_s)
        if crew.recorder is not None:
            facts = {"ended": ended, "success": outcome.success, "score": outcome.score}
            known = {name: fact for name, fact in facts.items() if fact is not None}
            crew.recorder.stop(now_s, known)
        self._episode = None
        self.done.append(outcome)
        if self._on_end is not None:
            self._on_end(outcome)

    def _rest(self) -> None:
        if self._crew.policy is not None:
            self._crew.policy.pause()
        if self._crew.hand is not None:
            self._crew.hand.pause()
        self._session.hold()
        self._mode, self._calls = "waits", None

    def _outcome(
        self, episode: _Running, ended: Ended, success: bool | None, now_s: float
    ) -> Outcome:
        truth = self._session.world.truth() if self._session.world else {}
        lasted_s = now_s - episode.start_s
        if ended == "stopped":
            truth = {}  # it says nothing of who drove
        elif success is None and truth:
            success = bool(truth["success"])
        return Outcome(
            number=episode.number,
            seed=episode.seed,
            ended=ended,
            success=success,
            score=truth.get("max_reward"),
            steps=int(truth["steps"]) if truth else round(lasted_s * self._session.config.fps),
            lasted_s=lasted_s,
            by_hand_s=episode.by_hand_s,
        )

    def _drop(self) -> None:
        """Drop the episode under way, else the last one that was kept."""
        if self._episode is not None:
            self._rest()
            self._give_up()
            self._crew.say("the episode is dropped")
        elif self._crew.recorder is not None and self.done:
            self._crew.recorder.drop_last()
            self.done.pop()

    def _give_up(self) -> None:
        self._episode = None
        if self._crew.recorder is not None:
            try:
                self._crew.recorder.give_up()
            except RobotError as error:
                log.warning("%s", error.message)
