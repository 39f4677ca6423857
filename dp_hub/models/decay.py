"""Which weights of a transformer AdamW may shrink.

minGPT's rule, which Diffusion Policy's transformers are trained with: matrices that multiply are
decayed; biases, norms, embeddings and learned positions are not, for shrinking those only fights
the optimiser. The paper's convolutional networks do without it: there everything is decayed.
"""

from torch import nn


def weight_decay_groups(module: nn.Module) -> tuple[list[str], list[str]]:
    """The names of all parameters of ``module``: those to decay, and the others.

    Decayed are the weights of linear layers and of attention's projections (``in_proj_weight``,
    ``out_proj.weight``). Each list is in the order of ``named_parameters``.
    """
    products = (nn.Linear, nn.MultiheadAttention)
    decayed = {
        f"{name}.{own}" if name else own
        for name, part in module.named_modules()
        if isinstance(part, products)
        for own, _ in part.named_parameters(recurse=False)
        if own.endswith("weight")
    }
    names = [name for name, _ in module.named_parameters()]
    return [name for name in names if name in decayed], [n for n in names if n not in decayed]
