"""ACT that sees: what cameras add to its tokens, and what it says to cameras that do not fit."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dp_hub.config import build, read_yaml
from dp_hub.errors import ConfigError, PolicyError
from dp_hub.models.act import ActNetwork
from dp_hub.models.resnet import ResNet18
from dp_hub.models.vision import load_torchvision
from dp_hub.policies.act import make_policy
from dp_hub.policies.act_config import ActConfig
from dp_hub.training.config import TrainConfig

FEATURES = {"observation.top": (48, 64, 3), "observation.wrist": (48, 64, 3)}
FEATURES |= {"observation.state": 5, "action": 2}
RESNET18 = 11_176_512  # without its classifier; group norms have as many weights as batch norms
TINY = {
    "observations": ["observation.top", "observation.wrist", "observation.state[:2]"],
    "horizon": 4,
    "n_action_steps": 4,
    "hidden_dim": 16,
    "feedforward_dim": 16,
    "n_heads": 2,
    "n_encoder_layers": 1,
    "n_style_layers": 1,
    "latent_dim": 4,
}


def tiny_policy(features=FEATURES, **options):
    torch.manual_seed(0)
    return make_policy(build(ActConfig, TINY | options, where="the test"), features)


def batch_of(rows, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def pictures():
        return torch.randint(256, (rows, 1, 48, 64, 3), generator=generator, dtype=torch.uint8)

    return {
        "observation.top": pictures(),
        "observation.wrist": pictures(),
        "observation.state": torch.randn(rows, 1, 5, generator=generator),
        "action": torch.randn(rows, 4, 2, generator=generator),
        "action_is_pad": torch.zeros(rows, 4, dtype=torch.bool),
    }


def test_every_place_of_every_camera_is_a_token():
    policy, batch = tiny_policy().eval(), batch_of(3)
    shapes = []
    policy.network.transformer.register_forward_hook(
        lambda module, given, out: shapes.append([tuple(one.shape) for one in given])
    )
    assert policy.predict_action(batch)["action"].shape == (3, 4, 2)
    n_tokens = 1 + 1 + 2 * (2 * 2)  # style, state, and a 32nd of 48 x 64 pixels, rounded up, twice
    assert shapes == [[(3, n_tokens, 16), (n_tokens, 16), (4, 16)]]


def test_both_cameras_reach_the_actions_and_every_weight_learns():
    policy, batch = tiny_policy().eval(), batch_of(2)
    base = policy.predict_action(batch)["action"]
    for name in ("observation.top", "observation.wrist"):
        moved = policy.predict_action(batch | {name: 255 - batch[name]})["action"]
        assert not torch.allclose(moved, base, atol=1e-4), name
    policy.train()(batch).backward()
    assert [name for name, one in policy.named_parameters() if one.grad is None] == []


@pytest.mark.parametrize(("share_weights", "networks"), [(False, 2), (True, 1)])
def test_cameras_have_networks_of_their_own_or_share_one(share_weights, networks):
    with torch.device("meta"):
        policy = tiny_policy(vision={"share_weights": share_weights})
        bare = ActNetwork(2, **policy_dims(), state_dim=2, map_channels=512)
    n = sum(parameter.numel() for parameter in policy.parameters())
    assert n == networks * RESNET18 + sum(parameter.numel() for parameter in bare.parameters())


def policy_dims():
    return {name: TINY[name] for name in TINY if name not in ("observations", "n_action_steps")}


def test_pictures_are_cropped_at_random_in_training_and_in_the_middle_after():
    policy, batch = tiny_policy(vision={"crop": [40, 40]}, dropout=0.0), batch_of(2)

    def seen():
        return policy.encoder(batch).maps[0]

    assert not torch.equal(seen(), seen())
    policy.eval()
    assert torch.equal(seen(), seen())
    before = seen()
    batch["observation.top"][:, :, :4] += 100  # the middle 40 of 48 rows begin at the fourth
    assert torch.equal(seen(), before)
    batch["observation.top"][:, :, :5] += 100
    assert not torch.equal(seen(), before)


def test_cameras_of_different_sizes_share_a_network_only_where_they_are_resized():
    features = FEATURES | {"observation.wrist": (96, 96, 3)}
    assert tiny_policy(features)
    with pytest.raises(PolicyError, match="different sizes"):
        tiny_policy(features, vision={"share_weights": True})
    policy = tiny_policy(features, vision={"share_weights": True, "resize": [48, 64]})
    assert len(policy.encoder.cameras) == 1


def test_floating_point_pictures_are_refused():
    batch = batch_of(2)
    batch["observation.top"] = batch["observation.top"].float()
    with pytest.raises(PolicyError, match=r"observation\.top is torch\.float32, expected .*uint8"):
        tiny_policy().predict_action(batch)


def test_a_part_of_a_picture_cannot_be_observed():
    with pytest.raises(PolicyError, match=r"observation\.top is a picture of 48 x 64 x 3"):
        tiny_policy(observations=["observation.top[:2]"])


def test_a_crop_larger_than_the_pictures_is_an_error():
    with pytest.raises(ConfigError, match="does not fit into pictures of 48 x 64"):
        tiny_policy(vision={"crop": [84, 84]})


def test_pooling_is_not_a_setting_of_act():
    with pytest.raises(ConfigError, match=r"unknown key `vision\.pool`"):
        tiny_policy(vision={"pool": "average"})


def test_the_shipped_configuration_has_the_papers_sizes():
    path = Path(__file__).resolve().parents[2] / "recipes" / "configs" / "pusht_act.yaml"
    config = build(TrainConfig, read_yaml(path), where=path.name).policy
    with torch.device("meta"):
        policy = make_policy(
            config, {"observation.image": (96, 96, 3), "observation.state": 5, "action": 2}
        )
    transformer = 8 * 4_333_184 + 5_384_832 + 2 * 512  # layers 512 wide, 3,200 inside, and a norm
    tokens = 3 * (2 * 512 + 512) + (512 * 512 + 512) + (1 + 2 + 20) * 512
    style = (512 * 64 + 64) + (32 * 512 + 512)
    head = 512 * 2 + 2
    n = sum(parameter.numel() for parameter in policy.parameters())
    assert n == transformer + tokens + style + head + RESNET18 == 51_557_634
    assert "51,557,634 parameters" in path.read_text()
    paper = {"dropout": 0.1, "kl_weight": 10, "latent_dim": 32, "n_heads": 8}
    assert config.model_dump().items() >= paper.items()


def test_a_camera_takes_trained_weights_of_its_resnet(tmp_path):
    other = ResNet18("group")
    for parameter in other.parameters():
        torch.nn.init.normal_(parameter)
    save_file(other.state_dict(), tmp_path / "resnet18.safetensors")
    policy = tiny_policy()
    load_torchvision(
        policy.encoder.cameras["observation__wrist"], tmp_path / "resnet18.safetensors"
    )
    saved = policy.state_dict()
    for name, value in other.state_dict().items():
        key = f"encoder.cameras.observation__{{}}.backbone.{name}"
        assert torch.equal(saved[key.format("wrist")], value)
        assert not torch.equal(saved[key.format("top")], value)
