"""What a mapping made features of, told in a few words for tables."""

from collections.abc import Mapping
from typing import Any


def origins(mapping: Any) -> dict[str, str]:
    """By feature, the streams or the feature it was made of; of a mapping's plain values.

    A mapping that was read from a dataset's files is not trusted: what is not as it should be is
    left out.
    """
    features = mapping.get("features") if isinstance(mapping, Mapping) else None
    if not isinstance(features, Mapping):
        return {}
    told = {str(name): _origin(made) for name, made in features.items()}
    return {name: origin for name, origin in told.items() if origin}


def _origin(made: Any) -> str:
    if not isinstance(made, Mapping):
        return ""
    if after := made.get("next"):
        return f"next {_joined(after)}"
    return _joined(made.get("from"))


def _joined(terms: Any) -> str:
    parts = []
    for term in terms if isinstance(terms, list) else [terms]:
        if isinstance(term, Mapping):
            parts.append(f"{term.get('stream', '')}{term.get('at', '')}")
        elif term is not None:
            parts.append(str(term))
    return ", ".join(parts)
