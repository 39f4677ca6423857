"""Several processes: the scores of one, bit for bit, and a clean end whatever happens."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from dp_hub.errors import PolicyError
from dp_hub.models.normalizer import Normalizer
from dp_hub.policies.config import DiffusionConfig, FlowObjective, MlpConfig
from dp_hub.policies.diffusion import make_policy
from dp_hub.policies.saving import save_policy
from dp_hub.rollout.episodes import EpisodeResult
from dp_hub.rollout.evaluation import Evaluation, evaluate, make_job
from dp_hub.rollout.worker import PolicySource, evaluate_on_processes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained policy of a size at which matrix products do depend on the batch."""
    torch.manual_seed(0)
    config = DiffusionConfig(
        observations=["observation.environment_state", "observation.state[:2]"],
        denoiser=MlpConfig(width=256, depth=2),
        objective=FlowObjective(num_inference_steps=3),
    )
    rows = np.random.default_rng(0).uniform(50, 450, (40, 18)).astype(np.float32)
    columns = {
        "observation.environment_state": rows,
        "observation.state": rows[:, :5],
        "action": rows[:, :2],
    }
    widths = {name: values.shape[1] for name, values in columns.items()}
    policy = make_policy(config, widths, normalizer=Normalizer.fit(columns))
    return save_policy(policy, tmp_path_factory.mktemp("policies") / "pusht")


def run(folder: Path, processes: int, **options: object) -> tuple[Evaluation, list[EpisodeResult]]:
    source = PolicySource(folder)
    policy = source.load()
    values = {"episodes": 9, "batch_size": 2, "max_steps": 40, **options}
    job = make_job(policy.config, **values)
    told: list[EpisodeResult] = []
    result = evaluate_on_processes(source, policy, job, processes=processes, on_finish=told.append)
    return result, told


@pytest.fixture(scope="module")
def alone(folder: Path) -> Evaluation:
    return run(folder, 1)[0]


@pytest.mark.parametrize("processes", [2, 3])
def test_several_processes_have_the_scores_of_one(
    folder: Path, alone: Evaluation, processes: int
) -> None:
    together, told = run(folder, processes)
    assert together.processes == processes
    assert together.reward == alone.reward and together.success == alone.success
    assert together.config == alone.config
    assert [one.seed for one in together.episodes] == list(range(100_000, 100_009))
    for one, other in zip(together.episodes, alone.episodes, strict=True):
        assert one.as_dict() == other.as_dict()
        assert np.array_equal(one.actions, other.actions)  # every bit, not only the score
        assert all(map(np.array_equal, *[[p.chunk for p in e.plans] for e in (one, other)]))
    assert sorted(one.seed for one in told) == [one.seed for one in together.episodes]
    assert (
        (together.cost.calls, together.cost.rows) == (alone.cost.calls, alone.cost.rows) != (0, 0)
    )


def test_a_group_has_the_same_scores_whatever_ran_before_it(
    folder: Path, alone: Evaluation
) -> None:
    later = run(folder, 1, seed=100_004, episodes=4)[0]
    for one, other in zip(later.episodes, alone.episodes[4:8], strict=True):
        assert np.array_equal(one.actions, other.actions)


def test_the_number_of_torch_threads_is_fixed_and_put_back(folder: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        two = run(folder, 1, episodes=2)[0]
        assert torch.get_num_threads() == 2
        torch.set_num_threads(1)
        one = run(folder, 1, episodes=2)[0]
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(one.episodes[1].actions, two.episodes[1].actions)


def test_no_more_processes_start_than_there_are_groups(folder: Path, alone: Evaluation) -> None:
    result, _ = run(folder, 8, batch_size=9)
    assert result.processes == 1
    scores = evaluate(PolicySource(folder).load(), episodes=9, batch_size=9, max_steps=40)
    assert result.reward == scores.reward


def test_an_error_in_a_process_comes_out_as_it_is(folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in folder.iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("bias"))
    weights[name] = torch.full_like(weights[name], float("nan"))
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(PolicyError, match=r"seed 10000\d are not finite numbers \(step 0\)"):
        run(broken, 2)


PROGRAM = """
import sys
from pathlib import Path
from dp_hub.rollout.evaluation import make_job
from dp_hub.rollout.worker import PolicySource, evaluate_on_processes

if __name__ == "__main__":
    source = PolicySource(Path(sys.argv[1]))
    policy = source.load()
    job = make_job(policy.config, episodes=4000, batch_size=4)
    told = lambda result: print(result.seed, flush=True)
    evaluate_on_processes(source, policy, job, processes=2, on_finish=told)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=lambda number: number.name)
def test_nothing_is_left_running(folder: Path, tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C reaches every process of a terminal; a kill only the one in front."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    running = subprocess.Popen(
        [sys.executable, str(program), str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert running.stdout is not None and running.stderr is not None
    running.stdout.readline()  # an episode has ended: both work
    workers = [pid for pid in _children(running.pid) if "spawn_main" in _command(pid)]
    assert len(workers) == 2
    if number is signal.SIGINT:
        os.killpg(running.pid, number)
    else:
        os.kill(running.pid, number)
    errors = running.communicate(timeout=30)[1]
    assert running.returncode != 0
    assert errors.count("Traceback") == (number is signal.SIGINT)  # this program's own, no worker's
    deadline = time.monotonic() + 30
    while any("spawn_main" in _command(pid) for pid in workers):
        assert time.monotonic() < deadline, [_command(pid) for pid in workers]
        time.sleep(0.1)


def test_a_killed_process_is_an_error_that_names_its_seeds(folder: Path) -> None:
    source = PolicySource(folder)
    policy = source.load()
    job = make_job(policy.config, episodes=400, batch_size=4)
    killed: list[int] = []

    def kill_one(result: EpisodeResult) -> None:
        if not killed:
            workers = [pid for pid in _children(os.getpid()) if "spawn_main" in _command(pid)]
            os.kill(workers[0], signal.SIGKILL)
            killed.append(workers[0])

    with pytest.raises(PolicyError, match=r"status -9 while it ran the seeds 100\d+ to 100\d+"):
        evaluate_on_processes(source, policy, job, processes=2, on_finish=kill_one)
    assert not [pid for pid in _children(os.getpid()) if "spawn_main" in _command(pid)]


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children")
    if not text.exists():
        pytest.skip("this system does not list a process's children under /proc")
    return [int(word) for word in text.read_text().split()]


def _command(pid: int) -> str:
    """What a process runs; empty once it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""
