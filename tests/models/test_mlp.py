"""The residual MLP denoiser."""

import torch

from dp_hub.models.mlp import MlpDenoiser


def test_output_has_the_shape_of_the_chunk():
    model = MlpDenoiser(2, 40, horizon=16, width=32, depth=2)
    out = model(torch.randn(3, 16, 2), torch.tensor([0, 5, 99]), torch.randn(3, 40))
    assert out.shape == (3, 16, 2)


def test_output_depends_on_chunk_step_and_condition():
    torch.manual_seed(0)
    model = MlpDenoiser(2, 4, horizon=8, width=32, depth=2)
    for block in model.blocks:
        torch.nn.init.normal_(block.contract.weight, std=0.1)
    sample, step, cond = torch.randn(1, 8, 2), torch.tensor([10.0]), torch.randn(1, 4)
    base = model(sample, step, cond)
    assert not torch.allclose(base, model(sample + 1, step, cond), atol=1e-3)
    assert not torch.allclose(base, model(sample, step + 10, cond), atol=1e-3)
    assert not torch.allclose(base, model(sample, step, cond + 1), atol=1e-3)


def test_forward_equals_denoise_with_the_embedded_step():
    model = MlpDenoiser(2, horizon=8, width=16, depth=1)
    sample, step = torch.randn(4, 8, 2), torch.arange(4)
    assert torch.equal(model(sample, step), model.denoise(sample, model.embed_step(step)))


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    model = MlpDenoiser(2, horizon=8, width=32, depth=1, dropout=0.5)
    torch.nn.init.normal_(model.blocks[0].contract.weight)
    sample, step = torch.randn(2, 8, 2), torch.zeros(2)
    assert not torch.equal(model(sample, step), model(sample, step))
    model.eval()
    assert torch.equal(model(sample, step), model(sample, step))


def test_a_condition_of_several_steps_is_the_same_as_its_numbers_in_a_row():
    model = MlpDenoiser(2, 6, horizon=8, width=16, depth=1)
    sample, step, cond = torch.randn(4, 8, 2), torch.arange(4), torch.randn(4, 2, 3)
    assert torch.equal(model(sample, step, cond), model(sample, step, cond.flatten(1)))
