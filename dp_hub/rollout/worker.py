"""One evaluation on several processes: each group of seeds runs whole in one of them.

A group's scores depend on nothing outside it (`dp_hub.rollout.episodes`), and every process
computes with the same number of threads, so the scores are those of one process, bit for bit.
"""

import multiprocessing
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from dp_hub.errors import DpHubError, PolicyError
from dp_hub.processes import end_process, interrupts_held
from dp_hub.rollout.episodes import Cost, EpisodeResult
from dp_hub.rollout.evaluation import Evaluation, Job, summarise, torch_threads
from dp_hub.rollout.intervals import ShareInterval

OnFinish = Callable[[EpisodeResult], None]
THREADS = 1
"""Of each process: always as many, so that one process computes what several do."""


@dataclass(frozen=True)
class PolicySource:
    """Where every process loads the policy from. Arguments as of `dp_hub.policies.load_policy`."""

    folder: Path
    device: str = "cpu"
    scheduler: str | None = None
    steps: int | None = None

    def load(self) -> Any:
        """The policy. Raises PolicyError."""
        from dp_hub.policies.saving import load_policy

        return load_policy(
            self.folder,
            device=self.device,
            scheduler=self.scheduler,
            num_inference_steps=self.steps,
        )

    def on_gpu(self, number: int) -> "PolicySource":
        """For the process of this number: where several GPUs are, they take turns."""
        if self.device != "cuda" or torch.cuda.device_count() < 2:
            return self
        device = f"cuda:{number % torch.cuda.device_count()}"
        return PolicySource(self.folder, device, self.scheduler, self.steps)


def evaluate_on_processes(
    source: PolicySource,
    policy: Any,
    job: Job,
    *,
    processes: int,
    interval: ShareInterval = "wilson",
    on_finish: OnFinish | None = None,
) -> Evaluation:
    """Score a policy on up to ``processes`` processes, with the same scores for any number.

    Args:
        source: where processes load the policy from.
        policy: loaded from there; it runs here if one process is enough.
        job: made for its configuration.
        processes: no more are started than there are groups.
        interval: of the success rate.
        on_finish: called with each episode as it ends.
    Raises:
        PolicyError: the policy predicts no numbers, or a process was killed.
    """
    processes = max(1, min(processes, len(job.groups)))
    began = time.perf_counter()
    with torch_threads(THREADS):
        if processes == 1:
            runner = job.runner(policy, on_finish)
            results = [result for group in job.groups for result in runner.run(group)]
            cost = runner.cost
        else:
            results, cost = _run_groups(source, job, processes, on_finish)
    return summarise(
        job,
        results,
        first_executed=job.execution.first_executed(policy.config),
        cost=cost,
        wall_s=time.perf_counter() - began,
        interval=interval,
        processes=processes,
    )


def _run_groups(
    source: PolicySource, job: Job, processes: int, on_finish: OnFinish | None
) -> tuple[list[EpisodeResult], Cost]:
    """Hand out the groups, the next one to whoever is free; results in the order of the seeds."""
    finished: dict[int, EpisodeResult] = {}
    cost = Cost()
    waiting = iter(job.groups)
    with _workers(source, job, processes) as workers:
        busy = [worker for worker in workers if worker.give(waiting)]
        while busy:
            told = wait([worker.connection for worker in busy])
            for worker in [worker for worker in busy if worker.connection in told]:
                message = worker.receive()
                if isinstance(message, EpisodeResult):
                    finished[message.seed] = message
                    if on_finish:
                        on_finish(message)
                else:
                    cost += message
                    if not worker.give(waiting):
                        busy.remove(worker)
    return [finished[seed] for group in job.groups for seed in group], cost


class _Worker:
    """A process and our end of the pipe to it."""

    def __init__(self, source: PolicySource, job: Job) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._group: Sequence[int] = ()
        self.process = context.Process(target=_work, args=(source, job, theirs), daemon=True)
        with interrupts_held():
            self.process.start()
        theirs.close()  # so that the end of the process is the end of the pipe

    def give(self, waiting: Iterator[range]) -> bool:
        """The next group, if there is one."""
        group = next(waiting, None)
        if group is None:
            return False
        self._group = group
        with suppress(BrokenPipeError):  # it has died, which `receive` will tell
            self.connection.send(group)
        return True

    def receive(self) -> EpisodeResult | Cost:
        """An episode that ended, or what a whole group has cost. Raises what went wrong there."""
        try:
            message = self.connection.recv()
        except (EOFError, OSError):  # OSError: it ended in the middle of a message
            self.process.join()
            raise PolicyError(
                f"a process ended with status {self.process.exitcode} while it ran the seeds "
                f"{self._group[0]} to {self._group[-1]}",
                hint="if memory ran out, --processes with a smaller number needs less",
            ) from None
        if isinstance(message, Exception):
            raise message
        return message

    def stop(self) -> None:
        """End the process, at once if it is busy."""
        self.connection.close()
        end_process(self.process)


@contextmanager
def _workers(source: PolicySource, job: Job, n: int) -> Iterator[list[_Worker]]:
    """Processes that are gone when the block ends, however it ends."""
    started: list[_Worker] = []
    try:
        for number in range(n):
            started.append(_Worker(source.on_gpu(number), job))
        yield started
    finally:
        for worker in started:
            worker.stop()


def _work(source: PolicySource, job: Job, connection: Connection) -> None:
    """A process's life: a group of seeds comes in, its episodes and their cost go out."""
    try:
        torch.set_num_threads(THREADS)
        runner = job.runner(source.load(), connection.send)
        while True:
            group = connection.recv()
            runner.cost = Cost()
            runner.run(group)
            connection.send(runner.cost)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # nobody wants more
    except DpHubError as error:
        reason: Exception = error
    except Exception:  # noqa: BLE001 - it goes on in the process that was asked
        reason = RuntimeError(f"a process of the evaluation failed:\n{traceback.format_exc()}")
    with suppress(BrokenPipeError):
        connection.send(reason)
