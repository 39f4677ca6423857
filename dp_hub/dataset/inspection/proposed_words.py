"""Names and texts as a proposed mapping file writes them: plain where YAML lets them be."""

import json
import re
from typing import Any

_YAML_WORDS = {"yes", "no", "on", "off", "true", "false", "null", "y", "n"}


def plain_name(name: str) -> str:
    """A stream's name as a feature's: ``/camera/color/image_raw`` as ``camera.color``."""
    words = [w for w in re.split(r"[/]+", name) if w]
    kept = [w for w in words if w not in ("image_raw", "image", "compressed", "image_rect_color")]
    return ".".join(kept or words) or "stream"


def key_word(name: str) -> str:
    """A key of a YAML mapping, quoted where it has to be."""
    simple = re.fullmatch(r"[A-Za-z_][\w.\-]*", name) and name.lower() not in _YAML_WORDS
    return name if simple else quoted(name)


def listed(text: str) -> str:
    """An entry of a YAML list in brackets."""
    simple = re.fullmatch(r"[A-Za-z_]\w+", text) and text.lower() not in _YAML_WORDS
    return text if simple else in_quotes(text)


def in_quotes(value: Any) -> str:
    """A text, or plain values with texts, as YAML with double quotes."""
    plain = json.dumps(value, ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in plain)


def quoted(text: str) -> str:
    """A YAML text, quoted where it has to be."""
    simple = re.fullmatch(r"[A-Za-z_/][\w./\-]*", text) and text.lower() not in _YAML_WORDS
    return text if simple else in_quotes(text)


def one_line(text: str) -> str:
    """Without line breaks and other characters that cannot be printed."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
