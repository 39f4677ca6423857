"""A policy driving an environment: scores with confidence intervals, pictures and videos."""

from dp_hub.rollout.evaluation import Evaluation, evaluate

__all__ = ["Evaluation", "evaluate"]
