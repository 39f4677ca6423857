"""Training configurations, among them the ones that ship."""

from pathlib import Path

import pytest

from dp_hub.config import build, read_yaml, with_overrides
from dp_hub.errors import ConfigError
from dp_hub.policies.config import DiffusionConfig, UnetConfig
from dp_hub.training.config import MAY_CHANGE_ON_RESUME, TrainConfig

CONFIGS = Path(__file__).resolve().parents[2] / "recipes" / "configs"


def load(name, *arguments):
    path = CONFIGS / name
    return build(TrainConfig, with_overrides(read_yaml(path), arguments), where=str(path))


def test_every_shipped_configuration_is_valid_and_starts_with_its_command():
    paths = sorted(CONFIGS.rglob("*.yaml"))
    assert len(paths) >= 3
    for path in paths:
        load(path.relative_to(CONFIGS))
        first = path.read_text().splitlines()[0]
        assert f"recipes/configs/{path.relative_to(CONFIGS)}" in first, path
        assert first.startswith(("# python recipes/", "# accelerate launch recipes/")), path


def test_pusht_state_is_the_papers():
    config = load("pusht_state.yaml")
    assert config.policy == DiffusionConfig()  # the defaults are the paper's too
    assert config.policy.denoiser == UnetConfig()
    assert (config.policy.horizon, config.policy.n_obs_steps, config.policy.n_action_steps) == (
        16,
        2,
        8,
    )
    assert (config.batch_size, config.steps, config.optimizer.warmup_steps) == (256, 210_000, 500)
    assert config.optimizer.betas == (0.95, 0.999)
    assert (config.optimizer.lr, config.optimizer.weight_decay) == (1e-4, 1e-6)
    assert (config.split.val_ratio, config.split.max_train_episodes) == (0.02, 90)
    assert config.optimizer.max_grad_norm is None and not config.policy.mask_padding


def test_overrides_reach_nested_settings():
    config = load("debug.yaml", "--policy.denoiser.width", "32", "--optimizer.lr=3e-4")
    assert config.policy.denoiser.width == 32 and config.optimizer.lr == 3e-4


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["--batchsize", "3"], "unknown key `batchsize`", "did you mean `batch_size`?"),
        (
            ["--policy.n_action_step", "3"],
            "unknown key `policy.n_action_step`",
            "did you mean `n_action_steps`?",
        ),
        (["--batch_size", "many"], "`batch_size`", None),
        (["--epochs", "3"], "steps and epochs are both given", None),
        (["--steps", "null"], "the run needs an end", None),
    ],
)
def test_mistake_on_the_command_line_is_named(arguments, message, hint):
    with pytest.raises(ConfigError) as caught:
        load("debug.yaml", *arguments)
    assert message in caught.value.message
    assert caught.value.hint == hint


def test_settings_that_may_change_exist():
    assert set(TrainConfig.model_fields) >= MAY_CHANGE_ON_RESUME


@pytest.mark.parametrize(
    ("seed", "episodes", "fits"),
    [(200_000, 20, True), (99_980, 20, True), (99_981, 20, False), (199_999, 1, False)],
)
def test_checkpoints_are_not_chosen_on_the_seeds_of_results(seed, episodes, fits):
    words = [f"--rollout.episodes={episodes}", f"--rollout.seed={seed}"]
    if fits:
        assert load("debug.yaml", *words).rollout.seed == seed
        return
    with pytest.raises(ConfigError, match="on the seeds that results are reported from"):
        load("debug.yaml", *words)
    # In whichever order a file has them.
    with pytest.raises(ConfigError, match="on the seeds that results are reported from"):
        load("debug.yaml", *reversed(words))


def test_precision_no_needs_no_quotes():
    assert load("pusht_state_cpu.yaml", "--mixed_precision", "no").mixed_precision == "no"
