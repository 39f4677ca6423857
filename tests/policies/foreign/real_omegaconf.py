"""Makes ``data/real_omegaconf.ckpt`` with the real OmegaConf, which dp_hub does not need:

pip install --target /tmp/omegaconf "omegaconf==2.2.3"
PYTHONPATH=/tmp/omegaconf python tests/policies/foreign/real_omegaconf.py
"""

from pathlib import Path

import dill
import torch
from omegaconf import OmegaConf  # type: ignore[import-not-found]
from original_checkpoints import model_state, payload, settings

if __name__ == "__main__":
    cfg = OmegaConf.create(settings("unet", model__down_dims=[8, 16]))
    path = Path(__file__).parent / "data" / "real_omegaconf.ckpt"
    path.parent.mkdir(exist_ok=True)
    made = payload(cfg, {"x": torch.ones(1)}, model_state("unet", 2, dims=(8, 16)))
    with path.open("wb") as file:
        torch.save(made, file, pickle_module=dill)
