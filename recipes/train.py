"""Train a policy. Copy this file and change it: the whole loop is `train`.

    accelerate launch recipes/train.py recipes/configs/pusht_state.yaml --dataset DIR_OR_NAME
    python recipes/train.py recipes/configs/debug.yaml --dataset DIR_OR_NAME --steps 50

Every setting of dp_hub.training.config.TrainConfig can be given as ``--key.sub value``.
``--resume`` continues a run from its newest checkpoint, exactly, or begins one if there is none.
Ctrl-C saves a checkpoint first. ``--push user/name`` sends the policies of checkpoints to the Hub.
``--streaming true`` fetches and holds only a part of the dataset at a time (docs/streaming.md).
Several processes and machines: recipes/accelerate/ and docs/training.md.
"""

import logging
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import yaml
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast_object_list

import dp_hub
from dp_hub.config import build, read_yaml, with_overrides
from dp_hub.config_help import settings_help
from dp_hub.errors import ConfigError, DpHubError
from dp_hub.files import write_atomic
from dp_hub.policies.kinds import Policy, make_policy
from dp_hub.training.breakdown import rescued
from dp_hub.training.chance import Chance
from dp_hub.training.config import TrainConfig
from dp_hub.training.data import TrainingData, training_data, what_is_used
from dp_hub.training.ema import Ema
from dp_hub.training.evaluation import action_error, validation_loss
from dp_hub.training.machine import (
    compile_networks,
    cpu_threads,
    faster_precision,
    join_processes,
    new_accelerator,
    stop_on_signals,
    usable_cores,
)
from dp_hub.training.meters import StepMeter
from dp_hub.training.metrics import Metrics, open_metrics
from dp_hub.training.optimizer import (
    clip_gradient,
    leave_out_if_broken,
    make_optimizer,
    set_rate,
)
from dp_hub.training.progress import Progress, clock_time
from dp_hub.training.pushing import Pusher, check_can_push
from dp_hub.training.results import save_best, save_result
from dp_hub.training.run import (
    Run,
    agree,
    alone_in,
    check_same_start,
    is_among_best,
    load_run,
    newest_checkpoint,
    precision_before,
    save_run,
)
from dp_hub.training.schedule import Budget, Session, cosine_factor

if TYPE_CHECKING:
    from dp_hub.dataset.reader import Dataset
    from dp_hub.dataset.streamed import StreamedDataset

log = logging.getLogger("dp_hub.train")
STOPPED_PATIENCE_S = 10.0
"""How long a run that was told to stop waits for a push on its way."""


def train(
    config: TrainConfig,
    dataset: "Dataset | StreamedDataset",
    *,
    resume: bool = False,
    command: str | None = None,
) -> Run:
    """Train as configured; checkpoints go to out_dir and, when the run is over, the policy.

    Args:
        config: of the run.
        dataset: opened by `open_data`; ``config.dataset`` is only its name.
        resume: continue from the newest checkpoint in out_dir, if there is one.
        command: what started the run, for the policy's card.
    """
    out_dir = Path(config.out_dir)
    checkpoint = newest_checkpoint(out_dir, resume=resume)
    process = join_processes(os.environ)
    check_same_start(checkpoint, process)
    set_threads(config, process)
    rank, world_size, device = process.process_index, process.num_processes, process.device
    data = training_data(dataset, config, device=device, rank=rank, world_size=world_size)
    log.info("learns %s", what_is_used(dataset, config.policy))
    torch.manual_seed(config.seed)
    policy = make_policy(config.policy, data.features, normalizer=data.normalizer).to(device)
    config = with_precision(config, policy, data, process, checkpoint)
    ema = Ema(policy, config.ema) if config.ema else None
    settings = config.optimizer
    adamw = make_optimizer(policy, settings, device)
    run = Run(policy, ema, adamw, data.batches, data.record)
    if checkpoint:
        load_run(run, checkpoint, config, process)
        log.info("continuing from %s", checkpoint)
    if config.compile:
        compile_networks(policy, device)
    accelerator = new_accelerator(config.mixed_precision, config.grad_accumulation)
    model, optimizer = accelerator.prepare(policy, adamw)
    model.train()

    calls, main = config.grad_accumulation, accelerator.is_main_process
    chance = Chance(config, rank=rank, world_size=world_size, device=device)
    budget, session = run_budget(config, len(data.batches)), Session(config.session_minutes)
    metrics = loggers(config, accelerator, run.step)
    pusher = open_pusher(config, accelerator)
    progress = Progress(enabled=main)
    elapsed_s, stop = run.stopwatch.elapsed_s, False
    meter = StepMeter(device, config.batch_size * calls * world_size, elapsed_s=elapsed_s)
    share = budget.progress(run.step, elapsed_s)
    with stop_on_signals() as request, rescued(run, config, main=main):
        while share < 1 and not stop:
            factor = cosine_factor(
                run.step,
                warmup_steps=settings.warmup_steps,
                total_steps=budget.steps,
                share=budget.share(elapsed_s),
            )
            set_rate(optimizer, settings.lr * factor)
            chance.begin(run.step)
            for call in range(calls):
                with accelerator.accumulate(model):
                    with meter.waiting():
                        batch = next(data.batches)
                    loss = model(batch, generator=chance.rows(run.step, call))
                    meter.add_loss(loss)
                    accelerator.backward(loss)
            norm = clip_gradient(accelerator, model, settings.max_grad_norm)
            meter.add_gradient(norm)
            with run.one_step():
                leave_out_if_broken(adamw, norm)
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)

            asked = request.received is not None or session.over
            elapsed_s, stop = agree(accelerator, run.stopwatch.elapsed_s, asked)
            share = budget.progress(run.step, elapsed_s)
            progress.update(run.step, share=share, elapsed_s=elapsed_s)
            last = share >= 1
            saving = due(run.step, config.save_every) or last or stop
            if due(run.step, config.log_every) or saving:  # a broken-down run is never saved
                numbers = meter.take(accelerator, elapsed_s=elapsed_s)
                progress.loss = numbers["train/loss"]
                metrics.log(run.step, numbers | {"train/lr": settings.lr * factor})
            with run.stopwatch.paused():
                score = None
                if due(run.step, config.eval_every) or due(run.step, config.rollout.every) or last:
                    progress.clear()
                    score = evaluate(run, data, config, accelerator, metrics, last=last)
                # The best are kept when they are measured, whichever steps are saved otherwise.
                better = config.save_every > 0 and is_among_best(run, config, score)
                if main and (saving or better):
                    save_run(run, out_dir, config, score=score)
                    if pusher:
                        pusher.offer(run.step, lambda to: save_result(run, to, config, command))
    metrics.close()
    run.finished, run.interrupted = share >= 1, request.received is not None
    if main:
        finish(run, config, command, pusher)
    return run


def open_data(config: TrainConfig) -> "Dataset | StreamedDataset":
    """The dataset to learn from, whole or for streaming."""
    if config.streaming is None:
        return dp_hub.open_dataset(config.dataset)
    return dp_hub.stream_dataset(
        config.dataset,
        store_gb=config.streaming.store_gb,
        patience_s=60 * config.streaming.patience_minutes,
    )


def due(step: int, every: int) -> bool:
    """Whether something done every so many steps (0: never) is done after this one."""
    return every > 0 and step % every == 0


def set_threads(config: TrainConfig, process: PartialState) -> None:
    """Let a run on the CPU use all of it."""
    if process.device.type == "cpu":
        cores, local = usable_cores(), process.num_processes
        automatic = cpu_threads(os.environ, cores=cores, local_processes=local)
        torch.set_num_threads(config.cpu_threads or automatic)


def with_precision(
    config: TrainConfig,
    policy: torch.nn.Module,
    data: TrainingData,
    process: PartialState,
    checkpoint: Path | None,
) -> TrainConfig:
    """``config`` with ``mixed_precision: auto`` replaced by what is faster, or was at the start."""
    if config.mixed_precision != "auto":
        return config
    chosen = [precision_before(checkpoint)]
    if chosen[0] is None and process.is_main_process:
        batch = {name: value.to(process.device) for name, value in example(data, config).items()}
        chosen = [faster_precision(policy, batch, process.device)]
    broadcast_object_list(chosen)
    return config.model_copy(update={"mixed_precision": chosen[0]})


def example(data: TrainingData, config: TrainConfig) -> dict[str, torch.Tensor]:
    """A batch that does not advance the run's data."""
    return data.train.__getitems__(list(range(min(config.batch_size, len(data.train)))))


def run_budget(config: TrainConfig, batches_per_epoch: int) -> Budget:
    """How long to train."""
    steps = config.steps
    if config.epochs:
        steps = max(1, config.epochs * batches_per_epoch // config.grad_accumulation)
    return Budget(steps, 60 * config.max_minutes if config.max_minutes else None)


def loggers(config: TrainConfig, accelerator: Accelerator, step: int) -> Metrics:
    """Where numbers go: on the first process only."""
    if not accelerator.is_main_process:
        return Metrics([])
    out_dir = Path(config.out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    values = config.model_dump(mode="json")
    text = yaml.safe_dump(values, sort_keys=False)
    write_atomic(out_dir / "train_config.yaml", text.encode())
    return open_metrics(
        out_dir, config.loggers, project=config.project, config=values, resumed_step=step
    )


def evaluate(
    run: Run,
    data: TrainingData,
    config: TrainConfig,
    accelerator: Accelerator,
    metrics: Metrics,
    *,
    last: bool,
) -> float | None:
    """Measure the averaged weights on the first process; the score that ranks checkpoints."""
    if not accelerator.is_main_process:
        return None
    policy = run.evaluated
    training = policy.training
    policy.eval()
    numbers = {"train/action_mse": action_error(policy, data.train)}
    if data.val:
        numbers["val/loss"] = validation_loss(policy, data.val, batch_size=config.batch_size)
    if due(run.step, config.rollout.every) or (last and config.rollout.every):
        numbers |= rollout_scores(policy, config)
    policy.train(training)
    run.numbers = numbers
    metrics.log(run.step, numbers)
    log.info(
        "step %d: %s", run.step, "  ".join(f"{name} {value:.4g}" for name, value in numbers.items())
    )
    if config.rollout.every:
        return numbers.get("rollout/mean_max_reward")
    return -numbers["val/loss"] if "val/loss" in numbers else None


def rollout_scores(policy: Policy, config: TrainConfig) -> dict[str, float]:
    """Scores of the policy in simulation, on selection seeds."""
    from dp_hub.rollout.evaluation import evaluate as roll_out

    settings = config.rollout
    result = roll_out(policy, env=settings.env, episodes=settings.episodes, seed=settings.seed)
    return {
        "rollout/mean_max_reward": result.mean_max_reward,
        "rollout/success_rate": result.success_rate,
    }


def open_pusher(config: TrainConfig, accelerator: Accelerator) -> Pusher | None:
    """What pushes policies to the Hub, if asked for: on the first process only."""
    if config.push is None or not accelerator.is_main_process:
        return None
    check_can_push(config.push)
    return Pusher(config.push, Path(config.out_dir) / "to_push")


def finish(run: Run, config: TrainConfig, command: str | None, pusher: Pusher | None) -> None:
    """Write the policies of a run that is over and say what can be done with them."""
    folder = Path(config.out_dir) / "policy"
    if run.finished:
        save_result(run, folder, config, command)
        best = save_best(run, config, command)
        log.info("trained %d steps in %s", run.step, clock_time(run.stopwatch.elapsed_s))
        log.info("next:  dp-hub eval %s\n       dp-hub push %s user/name", folder, folder)
        for other in best:
            log.info("chosen by its score:  dp-hub eval %s", other)
        print(folder)
    else:
        log.warning("stopped at step %d; the same command with --resume continues", run.step)
    if pusher and run.finished and pusher.newest != run.step:  # it had ended before, unpushed
        pusher.offer(run.step, lambda to: save_result(run, to, config, command))
    patience_s = 60 * config.push_patience_minutes if run.finished else STOPPED_PATIENCE_S
    if pusher and not pusher.finish(patience_s=patience_s):
        by_hand = f"dp-hub push {folder} {config.push}" if run.finished else "--resume"
        log.warning("the newest policy is not at %s; when it is back:  %s", config.push, by_hand)


def usage() -> str:
    """What ``--help`` prints."""
    return "\n\n".join(
        [
            "usage: train.py CONFIG.yaml [--resume] [--key.sub value ...]",
            (__doc__ or "").strip(),
            "Settings, in CONFIG.yaml or here. Values are YAML; defaults stand in brackets.",
            settings_help(TrainConfig),
        ]
    )


def main(arguments: list[str]) -> int:
    """``train.py CONFIG.yaml [--resume] [--key.sub value ...]``; the exit status."""
    # Only our own messages, and those of the first process: libraries log every request they make.
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    level = logging.INFO if os.environ.get("RANK", "0") == "0" else logging.ERROR
    logging.getLogger("dp_hub").setLevel(level)
    if {"--help", "-h"} & set(arguments):
        print(usage())
        return 0
    try:
        resume = "--resume" in arguments
        words = [word for word in arguments if word != "--resume"]
        if not words or words[0].startswith("--"):
            raise ConfigError(
                "no configuration was given",
                hint="python recipes/train.py CONFIG.yaml [--key v]; --help lists the settings",
            )
        values = with_overrides(read_yaml(Path(words[0])), words[1:])
        where = words[0] if len(words) == 1 else f"{words[0]} and the command line"
        config = build(TrainConfig, values, where=where)
        command = shlex.join(["accelerate", "launch", "recipes/train.py", *words])
        with alone_in(Path(config.out_dir), main=os.environ.get("RANK", "0") == "0"):
            run = train(config, open_data(config), resume=resume, command=command)
    except DpHubError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 130 if run.interrupted and not run.finished else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
