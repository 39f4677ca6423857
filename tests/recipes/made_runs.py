"""Runs of seconds for tests of the recipe: in this process, in others, and killed on the way."""

import contextlib
import json
import multiprocessing
import os
import signal
import socket
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import torch._dynamo  # optimisers import it when they are first used
from dp_hub_recipes.train import train
from safetensors.torch import load_file

from dp_hub import files
from dp_hub.config import build
from dp_hub.training.config import TrainConfig
from dp_hub.training.machine import join_processes

NO_CHANCE = {
    "observations": ["observation.state"],
    "denoiser": {"kind": "mlp", "width": 16, "depth": 1},
    "objective": {"kind": "flow_matching", "num_inference_steps": 2},
}
"""A policy that draws nothing itself: no dropout."""


def demonstrations(n_episodes=8, seed=0, fingerprint="f" * 64):
    """What a run reads of a dataset: an agent that walks towards a target it sees."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(20, 40, n_episodes)
    targets = np.repeat(generator.uniform(100, 400, (n_episodes, 2)), lengths, axis=0)
    steps = np.concatenate([np.arange(length) for length in lengths])[:, None]
    action = targets + 100 * np.exp(-steps / 10) + generator.normal(0, 2, targets.shape)
    state = np.concatenate([action + 5, targets, steps], axis=1)
    columns = {"observation.state": state.astype("f4"), "action": action.astype("f4")}
    return SimpleNamespace(
        root="demos",
        repo_id=None,
        revision=None,
        fingerprint=fingerprint,
        features={
            name: SimpleNamespace(dtype="float32", shape=column.shape[1:])
            for name, column in columns.items()
        },
        episodes=SimpleNamespace(stops=np.cumsum(lengths)),
        column=columns.__getitem__,
    )


def configuration(out_dir, **changes):
    values = {
        "dataset": "demos",
        "out_dir": str(out_dir),
        "policy": {**NO_CHANCE, "denoiser": {**NO_CHANCE["denoiser"], "dropout": 0.1}},
        "split": {"val_ratio": 0.2},
        "batch_size": 32,
        "steps": 20,
        "optimizer": {"lr": 1e-3, "warmup_steps": 3},
        "cpu_threads": 1,
        "log_every": 5,
        "eval_every": 7,
        "save_every": 0,
        "loggers": [],
    }
    return build(TrainConfig, values | changes, where="the test")


def lines_of(out_dir):
    return [json.loads(line) for line in (out_dir / "metrics.jsonl").read_text().splitlines()]


def weights(out_dir):
    """The policy's and, as they move further, the trained ones of the newest checkpoint."""
    found = load_file(out_dir / "policy" / "model.safetensors")
    newest = max((out_dir / "checkpoints").glob("step_*"))
    trained = load_file(newest / "model.safetensors")
    return found | {f"trained/{name}": value for name, value in trained.items()}


def everything(out_dir, *, leave_out=("elapsed_s", "config", "kept")):
    """All tensors and numbers of the newest checkpoint, but for the clock."""
    path = max((out_dir / "checkpoints").glob("step_*"))
    tensors = {}
    for file in sorted(path.glob("*.safetensors")):
        tensors |= {f"{file.stem}/{name}": value for name, value in load_file(file).items()}
    state = json.loads((path / "state.json").read_text())
    for key in leave_out:
        state.pop(key)
    return tensors, state


def assert_same_run(one, other, **options):
    (tensors, state), (others, other_state) = (
        everything(folder, **options) for folder in (one, other)
    )
    assert len(tensors) > 30 and tensors.keys() == others.keys()
    for name, value in tensors.items():
        assert torch.equal(value, others[name]), name
    assert state == other_state


def largest_difference(one, other):
    """Between two sets of tensors of the same names."""
    assert one.keys() == other.keys() and len(one) > 10
    largest = max((one[name] - other[name]).abs().max().item() for name in one)
    print(f"largest difference {largest:.2e}")
    return largest


_context = multiprocessing.get_context("forkserver")


def start(work, *arguments, **environ) -> BaseProcess:
    """``work(*arguments)`` in a process of its own with these variables; not waited for."""
    _have_imports_ready()
    process = _context.Process(target=_work, args=(work, arguments, environ))
    process.start()
    return process


def _have_imports_ready() -> None:
    """Fork from a process that has imported everything and trained nothing.

    Importing takes longer than these runs, and autograd does not survive a fork.
    """
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), before or ""])
    try:
        _context.set_forkserver_preload(["made_runs"])
        forkserver.ensure_running()
    finally:
        del os.environ["PYTHONPATH"]
        if before is not None:
            os.environ["PYTHONPATH"] = before


def start_together(n, work, *arguments) -> list[BaseProcess]:
    """``n`` processes that train together, as a launcher would start them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(n)}
    common["LOCAL_WORLD_SIZE"] = str(n)
    return [
        start(work, *arguments, RANK=str(rank), LOCAL_RANK=str(rank), **common) for rank in range(n)
    ]


def end(processes, *, status=0, timeout_s=60):
    """Wait for processes to end with a status."""
    for process in processes:
        process.join(timeout_s)
        assert process.exitcode == status, process.exitcode


def kill(processes) -> bool:
    """Kill processes outright; False if they had ended, and well, before that."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            os.kill(process.pid, signal.SIGKILL)
    for process in processes:
        process.join(30)
        assert process.exitcode in (0, -signal.SIGKILL), process.exitcode
    return all(process.exitcode for process in processes)


def run_made(out_dir, changes, resume):
    """Train on the demonstrations above."""
    torch.set_num_threads(1)
    train(configuration(out_dir, **changes), demonstrations(), resume=resume)


def run_killed(out_dir, changes, at, *, where):
    """Go on training, and be killed at the so-manieth call of one of ``where``."""
    calls = 0

    def killing(call):
        def called(*arguments, **named):
            nonlocal calls
            calls += 1
            if calls == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **named)

        return called

    for owner, name in where:
        setattr(owner, name, killing(getattr(owner, name)))
    run_made(out_dir, changes, True)


def run_killed_anywhere(out_dir, changes, at):
    """Between two steps, or between two things that it does to the disk."""
    run_killed(
        out_dir,
        changes,
        at,
        where=((torch.optim.AdamW, "step"), (os, "fsync"), (os, "replace"), (os, "rename")),
    )


def run_killed_in_a_checkpoint(out_dir, changes, at):
    """When a folder is complete but for its name."""
    run_killed(out_dir, changes, at, where=((files, "sync_tree"),))


def note_patience(out_dir):
    """Join the other processes and write down, in seconds, how long a collective may take."""
    join_processes(os.environ)
    group = torch.distributed.group.WORLD
    patience = group._get_backend(torch.device("cpu")).options._timeout
    (out_dir / os.environ["RANK"]).write_text(str(patience.total_seconds()))
    torch.distributed.destroy_process_group()


def _work(work, arguments, environ):
    os.environ.update(environ, OMP_NUM_THREADS="1")
    work(*arguments)


def newest_step(out_dir: Path) -> int:
    paths = (out_dir / "checkpoints").glob("step_*")
    return max((int(path.name[5:]) for path in paths), default=0)
