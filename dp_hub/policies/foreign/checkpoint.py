"""The original's ``.ckpt`` files to dp_hub policies. Nothing in the file is executed."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dp_hub.errors import PolicyError
from dp_hub.policies.card import CardFacts
from dp_hub.policies.diffusion import DiffusionPolicy, make_policy
from dp_hub.policies.foreign.original_config import Plan, plan_of
from dp_hub.policies.foreign.original_weights import Weights, picture_scale, policy_weights
from dp_hub.policies.foreign.settings import plain_settings
from dp_hub.policies.foreign.torch_file import TorchFile, open_torch_file
from dp_hub.policies.saving import save_policy
