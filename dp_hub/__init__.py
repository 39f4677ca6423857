"""Robot demonstrations to a working policy on the Hugging Face Hub and back to a robot."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["__version__", "load_policy", "open_dataset", "stream_dataset"]

if TYPE_CHECKING:
    from dp_hub.dataset.reader import open_dataset
    from dp_hub.dataset.streamed import stream_dataset
    from dp_hub.policies.saving import load_policy


def __getattr__(name: str) -> Any:
    # Late, so that `import dp_hub` and `dp-hub --help` load neither torch nor pyarrow.
    if name == "open_dataset":
        from dp_hub.dataset.reader import open_dataset

        return open_dataset
    if name == "stream_dataset":
        from dp_hub.dataset.streamed import stream_dataset

        return stream_dataset
    if name == "load_policy":
        from dp_hub.policies.saving import load_policy

        return load_policy
    raise AttributeError(f"module 'dp_hub' has no attribute {name!r}")
