"""Real robots and simulated ones in real time: devices, control, observation, recording."""
