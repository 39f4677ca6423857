"""A policy driving an environment: scores with confidence intervals, pictures and videos."""
