"""Train several seeds of a configuration, spread over the GPUs or the CPU cores of this machine.

    python recipes/sweep.py CONFIG.yaml --seeds 42 43 44
    python recipes/sweep.py CONFIG.yaml --seeds 42 43 --jobs 2 -- --dataset DIR_OR_NAME --steps 500

Options after ``--`` are those of recipes/train.py. A seed trains into ``out_dir/seed_42`` and what
it says goes to log.txt there. The same command again continues every seed where it stopped. Ctrl-C
stops all: each saves a checkpoint first. Afterwards ``dp-hub runs`` sums the seeds up.
"""

import argparse
import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from dp_hub.config import build, read_yaml, with_overrides
from dp_hub.errors import ConfigError, DpHubError
from dp_hub.training.config import TrainConfig
from dp_hub.training.machine import usable_cores

TRAIN = Path(__file__).with_name("train.py")
Place = dict[str, str]
"""Where one run at a time trains, as environment variables: a GPU, or a share of the cores."""


@dataclass
class Job:
    """A seed that trains."""

    seed: int
    place: Place
    log: Path
    process: subprocess.Popen[bytes]


def places(jobs: int | None, environ: Mapping[str, str], *, gpus: int, cores: int) -> list[Place]:
    """One per GPU, at most ``jobs``; without GPUs ``jobs``, 1 unless told, that share the cores."""
    if gpus:
        named = environ.get("CUDA_VISIBLE_DEVICES")
        ids = named.split(",") if named else [str(gpu) for gpu in range(gpus)]
        return [{"CUDA_VISIBLE_DEVICES": gpu.strip()} for gpu in ids[:gpus]][:jobs]
    threads = str(max(1, cores // (jobs or 1)))
    return [{"OMP_NUM_THREADS": environ.get("OMP_NUM_THREADS", threads)}] * (jobs or 1)


def start(config: Path, seed: int, place: Place, out_dir: Path, options: Sequence[str]) -> Job:
    """Begin or continue a seed. Its signals come from us, not from the terminal."""
    folder = out_dir / f"seed_{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    own = ["--seed", str(seed), "--out_dir", str(folder), "--resume"]
    command = [sys.executable, str(TRAIN), str(config), *options, *own]
    with (folder / "log.txt").open("ab") as log:
        log.write(f"$ {shlex.join(command)}\n".encode())
        log.flush()
        process = subprocess.Popen(
            command,
            env={**os.environ, **place},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    where = ", ".join(f"{name}={value}" for name, value in place.items())
    say(f"seed {seed}: training with {where}, {folder}/log.txt")
    return Job(seed, place, folder / "log.txt", process)


def sweep(
    config: Path, seeds: Sequence[int], free: list[Place], out_dir: Path, options: Sequence[str]
) -> list[int]:
    """Train every seed as places become free; the seeds that failed."""
    waiting, running, failed = list(seeds), list[Job](), list[int]()
    try:
        while waiting or running:
            while waiting and free:
                running.append(start(config, waiting.pop(0), free.pop(0), out_dir, options))
            time.sleep(0.2)
            for job in [job for job in running if job.process.poll() is not None]:
                running.remove(job)
                free.append(job.place)
                failed += [] if finished(job) else [job.seed]
    finally:
        for job in running:
            say(f"seed {job.seed}: stopping")
            with contextlib.suppress(ProcessLookupError):
                os.killpg(job.process.pid, signal.SIGTERM)
        for job in running:
            job.process.wait()
    return failed


def finished(job: Job) -> bool:
    """Whether a run that has ended did its work; says so, or shows the end of its log."""
    if job.process.returncode == 0:
        say(f"seed {job.seed}: done")
        return True
    lines = job.log.read_text(errors="replace").replace("\r", "\n").splitlines()
    say(f"seed {job.seed}: failed with status {job.process.returncode}; {job.log} ends with")
    say("\n".join(f"    {line}" for line in [line for line in lines if line.strip()][-5:]))
    return False


def say(text: str) -> None:
    """To the person watching; stdout is for the command that comes next."""
    print(text, file=sys.stderr, flush=True)


def main(arguments: list[str]) -> int:
    """See the top of this file; the exit status: 1 if a seed failed, 130 if interrupted."""
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    options = [word for word in arguments[cut + 1 :] if word != "--resume"]  # as it always does
    parser = argparse.ArgumentParser(
        prog="sweep.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="python recipes/train.py --help lists the settings that may follow --",
    )
    parser.add_argument("config", type=Path, help="a training configuration, CONFIG.yaml")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44], help="42 43 44")
    parser.add_argument("--jobs", type=int, help="runs at a time; default one per GPU, or one")
    asked = parser.parse_args(arguments[:cut])
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends a sweep as Ctrl-C does
    try:
        if asked.jobs is not None and asked.jobs < 1:
            raise ConfigError(f"--jobs {asked.jobs}: at least one must run")
        values = with_overrides(read_yaml(asked.config), options)
        out_dir = Path(build(TrainConfig, values, where=str(asked.config)).out_dir)
        free = places(asked.jobs, os.environ, gpus=torch.cuda.device_count(), cores=usable_cores())
        seeds = list(dict.fromkeys(asked.seeds))
        failed = sweep(asked.config, seeds, free, out_dir, options)
    except DpHubError as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        say("interrupted; the same command continues")
        return 130
    say(f"{len(seeds) - len(failed)} of {len(seeds)} seeds are done; sum them up with")
    print(f"dp-hub runs {shlex.quote(str(out_dir))}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
