"""Train a diffusion policy. Copy this file and change it: the whole loop is `train`.

    accelerate launch recipes/train.py recipes/configs/pusht_state.yaml --dataset DIR_OR_NAME
    python recipes/train.py recipes/configs/debug.yaml --dataset DIR_OR_NAME --steps 50

Every setting of dp_hub.training.config.TrainConfig can be given as ``--key.sub value``.
``--streaming true`` fetches and holds only a part of the dataset at a time (docs/streaming.md).
``--resume`` continues a run from its newest checkpoint, exactly, or begins one if there is none.
Ctrl-C saves a checkpoint first. Several processes on GPUs: ``accelerate launch --num_processes N``;
on CPUs: ``torchrun --nproc_per_node N``.
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
from dp_hub.errors import ConfigError, DpHubError
from dp_hub.policies.card import CardFacts
from dp_hub.policies.kinds import Policy, make_policy
from dp_hub.policies.saving import save_policy
from dp_hub.training.config import TrainConfig
from dp_hub.training.data import TrainingData, training_data
from dp_hub.training.ema import Ema
from dp_hub.training.evaluation import LossMeter, action_error, validation_loss
from dp_hub.training.machine import (
    cpu_threads,
    faster_precision,
    join_processes,
    new_accelerator,
    stop_on_signals,
    usable_cores,
)
from dp_hub.training.metrics import Metrics, open_metrics
from dp_hub.training.progress import Progress, clock_time
from dp_hub.training.run import (
    Run,
    agree,
    load_run,
    newest_checkpoint,
    precision_before,
    save_run,
)
from dp_hub.training.schedule import Budget, cosine_factor

if TYPE_CHECKING:
    from dp_hub.dataset.reader import Dataset
    from dp_hub.dataset.streamed import StreamedDataset

log = logging.getLogger("dp_hub.train")


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
    set_threads(config, process)
    data = training_data(
        dataset,
        config,
        device=process.device,
        rank=process.process_index,
        world_size=process.num_processes,
    )
    torch.manual_seed(config.seed)
    policy = make_policy(config.policy, data.features, normalizer=data.normalizer)
    policy.to(process.device)
    config = with_precision(config, policy, data, process, checkpoint)
    accelerator = new_accelerator(config.mixed_precision, config.grad_accumulation)
    ema = Ema(policy, config.ema) if config.ema else None
    settings = config.optimizer
    adamw = torch.optim.AdamW(
        policy.parameters(),
        lr=settings.lr,
        betas=settings.betas,
        eps=settings.eps,
        weight_decay=settings.weight_decay,
        fused=process.device.type in ("cpu", "cuda"),
    )
    run = Run(policy, ema, adamw, data.batches, data.record)
    torch.manual_seed(config.seed + 1 + process.process_index)
    if checkpoint:
        load_run(run, checkpoint, config, accelerator)
        log.info("continuing from %s", checkpoint)
    model, optimizer = accelerator.prepare(policy, adamw)
    model.train()

    budget = run_budget(config, len(data.batches))
    metrics = loggers(config, accelerator, run.step)
    progress = Progress(enabled=accelerator.is_main_process)
    meter = LossMeter(process.device)
    elapsed_s, stop = run.stopwatch.elapsed_s, False
    share = budget.progress(run.step, elapsed_s)
    with stop_on_signals() as request:
        while share < 1 and not stop:
            factor = cosine_factor(
                run.step,
                warmup_steps=settings.warmup_steps,
                total_steps=budget.steps,
                share=budget.share(elapsed_s),
            )
            for group in optimizer.param_groups:
                group["lr"] = settings.lr * factor
            for _ in range(config.grad_accumulation):
                with accelerator.accumulate(model):
                    loss = model(next(data.batches))
                    meter.add(loss)
                    accelerator.backward(loss)
                    if settings.max_grad_norm and accelerator.sync_gradients:
                        accelerator.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
                    optimizer.step()
                    optimizer.zero_grad(set_to_none=True)
            if ema:
                ema.update(policy)
            run.step += 1

            asked = request.received is not None
            elapsed_s, stop = agree(accelerator, run.stopwatch.elapsed_s, asked)
            share = budget.progress(run.step, elapsed_s)
            progress.update(run.step, share=share, elapsed_s=elapsed_s)
            last = share >= 1
            saving = due(run.step, config.save_every) or last or stop
            if due(run.step, config.log_every) or saving:  # a broken-down run is never saved
                progress.loss = meter.take(accelerator, run.step)
                numbers = {"train/loss": progress.loss, "train/lr": settings.lr * factor}
                metrics.log(run.step, numbers | {"train/elapsed_s": elapsed_s})
            with run.stopwatch.paused():
                score = None
                if due(run.step, config.eval_every) or due(run.step, config.rollout.every) or last:
                    progress.clear()
                    score = evaluate(run, data, config, accelerator, metrics, last=last)
                if saving:
                    save_run(run, out_dir, config, accelerator, score=score)
    metrics.close()
    run.finished = share >= 1
    if not run.finished:
        log.warning("stopped at step %d; the same command with --resume continues", run.step)
    elif accelerator.is_main_process:
        save_result(run, config, command)
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
    (out_dir / "train_config.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
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


def save_result(run: Run, config: TrainConfig, command: str | None) -> None:
    """Write the policy folder and say what can be done with it."""
    minutes = clock_time(run.stopwatch.elapsed_s)
    numbers = {"optimiser steps": f"{run.step:,}", "training time": f"{minutes} on {hardware()}"}
    numbers |= {name: f"{value:.4g}" for name, value in run.numbers.items()}
    folder = save_policy(
        run.evaluated,
        Path(config.out_dir) / "policy",
        card=CardFacts(dataset=run.record, numbers=numbers, command=command),
        train_config=config.model_dump(mode="json"),
    )
    log.info("trained %d steps in %s", run.step, minutes)
    log.info("next:  dp-hub eval %s\n       dp-hub push %s user/name", folder, folder)
    print(folder)


def hardware() -> str:
    """The device that trained, in words."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{torch.get_num_threads()} CPU threads"


def main(arguments: list[str]) -> int:
    """``train.py CONFIG.yaml [--resume] [--key.sub value ...]``; the exit status."""
    # Only our own messages, and those of the first process: libraries log every request they make.
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    level = logging.INFO if os.environ.get("RANK", "0") == "0" else logging.ERROR
    logging.getLogger("dp_hub").setLevel(level)
    try:
        resume = "--resume" in arguments
        words = [word for word in arguments if word != "--resume"]
        if not words or words[0].startswith("--"):
            raise ConfigError(
                "no configuration was given", hint="python recipes/train.py CONFIG.yaml [--key v]"
            )
        values = with_overrides(read_yaml(Path(words[0])), words[1:])
        where = words[0] if len(words) == 1 else f"{words[0]} and the command line"
        config = build(TrainConfig, values, where=where)
        command = shlex.join(["accelerate", "launch", "recipes/train.py", *words])
        run = train(config, open_data(config), resume=resume, command=command)
    except DpHubError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0 if run.finished else 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
