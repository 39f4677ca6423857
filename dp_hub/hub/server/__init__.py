"""A small Hub server: for a laptop, a lab without internet, the demo and the tests.

The real ``huggingface_hub`` and ``datasets`` clients work against it. What it leaves out: quotas,
gating, pull requests, spaces, the viewer and xet.
"""
