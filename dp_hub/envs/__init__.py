"""Simulated tasks. Importing this package registers them with gymnasium as ``dp_hub/...``."""

import gymnasium

gymnasium.register(
    id="dp_hub/PushT-v0",
    entry_point="dp_hub.envs.pusht.env:PushTEnv",
    max_episode_steps=300,
)
