"""Policies that other code has trained: the original checkpoints, LeRobot's policy folders."""
