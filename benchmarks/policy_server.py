"""What it costs to ask a policy in another process or on another machine.

    python benchmarks/policy_server.py [mail] [serve] [--rounds N]

mail    A question to a process that answers at once, in shared memory as `LocalInference` hands it
        over, and through a pipe of `multiprocessing`, pickled.
serve   The same policy asked here, in a process of its own, and through `dp-hub serve-policy` on
        loopback. All give the same chunk, which is checked.

Observations are two steps of 20 numbers, with nothing else, with two cameras of 96 x 96, or with
two of 480 x 640. What is compared runs in turns in one run, so a busy machine is busy for all.
Prints Markdown tables to stdout.
"""

import argparse
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np

from dp_hub.robot.inference.client import PolicyClient
from dp_hub.robot.inference.info import Answer, PolicyInfo, Question
from dp_hub.robot.inference.local import LocalInference
from dp_hub.robot.inference.mailbox import Mailbox, MailSpec, Reply
from dp_hub.robot.worker import Context, Worker

STATE = "observation.state"
CASES: dict[str, tuple[int, int] | None] = {
    "20 numbers": None,
    "+ 2 cameras 96 x 96": (96, 96),
    "+ 2 cameras 480 x 640": (480, 640),
}
SERVER = "from dp_hub.cli.main import main; main()"
Row = dict[str, list[float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", default=["mail", "serve"], help="mail, serve")
    parser.add_argument("--rounds", type=int, default=200)
    options = parser.parse_args()
    for part in options.parts:
        load = os.getloadavg()[0]
        print(f"\n### {part} ({os.cpu_count()} cores, load {load:.1f})\n", flush=True)
        {"mail": mail, "serve": serve}[part](options.rounds)


def features(size: tuple[int, int] | None) -> dict[str, tuple[int, ...]]:
    """Of one case."""
    cameras = {} if size is None else {f"observation.camera_{n}": (*size, 3) for n in (1, 2)}
    return {STATE: (20,), **cameras, "action": (7,)}


def observed(info: PolicyInfo, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        name: rng.integers(0, 256, info.observed_shape(name)).astype(info.observed_dtype(name))
        for name in info.observed
    }


def take_turns(sides: dict[str, Callable[[int], float]], rounds: int) -> Row:
    """Seconds of each side, given the round's number; the first rounds are to warm up."""
    spent: Row = {name: [] for name in sides}
    for turn in range(-5, rounds):
        for name, ask in sides.items():
            seconds = ask(turn)
            if turn >= 0:
                spent[name].append(seconds)
    return spent


def cells(seconds: list[float]) -> str:
    p50, p95 = np.percentile(seconds, [50, 95]) * 1e3
    return f"{p50:.2f} | {p95:.2f}"


def mail(rounds: int) -> None:
    """Questions to a process that does nothing."""
    print("| observations | MB | way | ms, p50 | p95 | of it handing over, p50 | p95 |")
    print("|---|---|---|---|---|---|---|")
    for case, size in CASES.items():
        shapes = features(size)
        names = tuple(name for name in shapes if name != "action")
        info = PolicyInfo("none", None, "none", 2, 8, 16, None, names, "action", shapes)
        obs = observed(info, 0)
        megabytes = sum(value.nbytes for value in obs.values()) / 1e6
        handed: Row = {"shared memory": [], "pipe": []}
        with ExitStack() as stack:
            sides = {"shared memory": by_mail(stack, info, obs, handed["shared memory"])}
            sides["pipe"] = by_pipe(stack, obs, handed["pipe"])
            spent = take_turns(sides, rounds)
        for way, seconds in spent.items():
            given = cells(handed[way][-rounds:])
            print(f"| {case} | {megabytes:.2f} | {way} | {cells(seconds)} | {given} |", flush=True)


def by_mail(
    stack: ExitStack, info: PolicyInfo, obs: dict[str, np.ndarray], handed: list[float]
) -> Callable[[int], float]:
    box = Mailbox.create(info)
    stack.callback(box.close)
    worker = Worker("echo", echo_mail, (box.spec, info.chunk_shape))
    worker.start()
    stack.callback(worker.stop)
    worker.wait_ready(60)

    def ask(turn: int) -> float:
        began = time.perf_counter()
        box.ask(Question(turn + 100, obs, 0, None))
        handed.append(time.perf_counter() - began)
        while box.answer(turn + 100) is None:
            time.sleep(0.0005)
        return time.perf_counter() - began

    return ask


def echo_mail(context: Context, argument: tuple[MailSpec, tuple[int, int]]) -> None:
    spec, shape = argument
    box = Mailbox.attach(spec)
    context.ready()
    while not context.stopping:
        question = box.question()
        if question is None:
            time.sleep(0.0005)
        else:
            box.reply(Reply(question.number, np.zeros(shape, np.float32), 0.0))


def by_pipe(
    stack: ExitStack, obs: dict[str, np.ndarray], handed: list[float]
) -> Callable[[int], float]:
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=echo_pipe, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    stack.callback(process.join)
    stack.callback(ours.close)

    def ask(turn: int) -> float:
        began = time.perf_counter()
        ours.send((turn, obs))
        handed.append(time.perf_counter() - began)
        assert ours.recv()[0] == turn
        return time.perf_counter() - began

    return ask


def echo_pipe(connection: Connection) -> None:
    try:
        while True:
            turn, _ = connection.recv()
            connection.send((turn, np.zeros((16, 7), np.float32)))
    except EOFError:
        return


def serve(rounds: int) -> None:
    """The same policy in three places."""
    print("| observations | asked | ms, p50 | p95 | more than the policy's own time, p50 | p95 |")
    print("|---|---|---|---|---|---|")
    for case, size in CASES.items():
        with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
            folder = make_policy(Path(name) / "policy", size)
            own: Row = {"another process": [], "server on loopback": []}
            inference = stack.enter_context(LocalInference(folder))
            client = stack.enter_context(start_server(stack, folder, Path(name) / "token"))
            questions = [observed(inference.info, seed) for seed in range(8)]
            sides = {
                "here": here(folder, questions),
                "another process": there(inference, questions, own["another process"]),
                "server on loopback": remote(client, questions, own["server on loopback"]),
            }
            check_same(folder, inference, client, questions)
            spent = take_turns(sides, rounds)
        for way, seconds in spent.items():
            more = [a - b for a, b in zip(seconds, own.get(way, seconds)[-rounds:], strict=True)]
            last = cells(more) if way in own else "- | -"
            print(f"| {case} | {way} | {cells(seconds)} | {last} |", flush=True)


def make_policy(folder: Path, size: tuple[int, int] | None) -> Path:
    """A small policy with random weights."""
    import torch

    from dp_hub.config import build
    from dp_hub.policies import diffusion
    from dp_hub.policies.config import DiffusionConfig
    from dp_hub.policies.saving import save_policy

    torch.manual_seed(0)
    shapes = features(size)
    values: dict[str, Any] = {
        "observations": [name for name in shapes if name != "action"],
        "denoiser": {"kind": "mlp", "width": 64, "depth": 2},
        "objective": {"kind": "flow_matching", "num_inference_steps": 4},
        "vision": {"resize": [48, 64] if size == (480, 640) else None},
    }
    config = build(DiffusionConfig, values, where="the benchmark")
    widths = {name: shape[0] if len(shape) == 1 else shape for name, shape in shapes.items()}
    return save_policy(diffusion.make_policy(config, widths).eval(), folder)  # type: ignore[arg-type]


def start_server(stack: ExitStack, folder: Path, token: Path) -> PolicyClient:
    command = [sys.executable, "-c", SERVER, "serve-policy", str(folder), "--port", "0"]
    command += ["--threads", "1", "--device", "cpu", "--token-file", str(token)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    stack.callback(process.wait)
    stack.callback(process.terminate)
    assert process.stdout is not None
    found = re.search(r"ws://\S+", process.stdout.readline())
    assert found is not None
    return PolicyClient(found[0], token_file=token)


def predictor(folder: Path) -> Callable[[dict[str, np.ndarray], int], np.ndarray]:
    import torch

    from dp_hub.policies.saving import load_policy

    policy = load_policy(folder)

    def predict(obs: dict[str, np.ndarray], seed: int) -> np.ndarray:
        batch = {name: torch.from_numpy(value)[None] for name, value in obs.items()}
        generator = torch.Generator().manual_seed(seed)
        return policy.predict_action(batch, generator=generator)["action_pred"][0].numpy()

    return predict


def here(folder: Path, questions: list[dict[str, np.ndarray]]) -> Callable[[int], float]:
    predict = predictor(folder)

    def ask(turn: int) -> float:
        began = time.perf_counter()
        predict(questions[turn % len(questions)], 0)
        return time.perf_counter() - began

    return ask


def answered(inference: LocalInference, obs: dict[str, np.ndarray]) -> Answer:
    inference.ask(obs, seed=0)
    while not inference.wait(60):
        pass
    answer = inference.answer()
    assert answer is not None
    return answer


def there(
    inference: LocalInference, questions: list[dict[str, np.ndarray]], own: list[float]
) -> Callable[[int], float]:
    def ask(turn: int) -> float:
        began = time.perf_counter()
        own.append(answered(inference, questions[turn % len(questions)]).compute_s)
        return time.perf_counter() - began

    return ask


def remote(
    client: PolicyClient, questions: list[dict[str, np.ndarray]], own: list[float]
) -> Callable[[int], float]:
    def ask(turn: int) -> float:
        began = time.perf_counter()
        own.append(client.predict(questions[turn % len(questions)], seed=0).compute_s)
        return time.perf_counter() - began

    return ask


def check_same(
    folder: Path,
    inference: LocalInference,
    client: PolicyClient,
    questions: list[dict[str, np.ndarray]],
) -> None:
    predict = predictor(folder)
    for obs in questions:
        expected = predict(obs, 0)
        assert np.array_equal(answered(inference, obs).chunk, expected)
        assert np.array_equal(client.predict(obs, seed=0).chunk, expected)


if __name__ == "__main__":
    main()
