"""Where a policy server is and how it knows its clients. Standard library only."""

import os
import ssl
from pathlib import Path
from urllib.parse import urlsplit

from dp_hub.errors import RobotError

TOKEN_VARIABLE = "DP_HUB_POLICY_TOKEN"
DEFAULT_PORT = 8470
TOKEN_HINT = (
    "`dp-hub serve-policy` prints the file that its token is in: copy it to this machine and name "
    f"it, or set {TOKEN_VARIABLE}=$(cat FILE)"
)


def read_token(file: str | Path | None = None) -> str:
    """The server's token, from a file or from $DP_HUB_POLICY_TOKEN. Raises RobotError."""
    if file is None:
        token = os.environ.get(TOKEN_VARIABLE, "").strip()
        where = f"${TOKEN_VARIABLE}"
    else:
        where = str(file)
        try:
            token = Path(file).expanduser().read_text(encoding="ascii").strip()
        except (OSError, ValueError) as error:
            raise RobotError(
                f"no token can be read from {file}: {error}", hint=TOKEN_HINT
            ) from None
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise RobotError(f"{where} holds no token", hint=TOKEN_HINT)
    return token


def split_address(url: str) -> tuple[str, str, int]:
    """The url, its host and its port. Raises RobotError; a token in it is not repeated."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or DEFAULT_PORT
    except ValueError:
        parts, host, port = urlsplit(""), None, 0
    if parts.username or parts.password or parts.query or parts.fragment:
        raise RobotError(
            "a policy server's address holds nothing but host and port", hint=TOKEN_HINT
        )
    if parts.scheme not in ("ws", "wss") or not host or parts.path not in ("", "/"):
        raise RobotError(
            f"{url!r} is not the address of a policy server",
            hint=f"ws://HOST:{DEFAULT_PORT}, or wss:// where it has a certificate",
        )
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}:{port}", host, port


def tls_of(url: str, certificate: str | Path | None) -> ssl.SSLContext | None:
    """How a connection to ``url`` is encrypted, if it is.

    Args:
        url: of `split_address`.
        certificate: file of the certificate to trust; None: the system's.

    Raises:
        RobotError: there is a certificate and no encryption, or it cannot be read.
    """
    if not url.startswith("wss:"):
        if certificate is not None:
            raise RobotError(f"{url} is not encrypted, so it has no certificate", hint="wss://")
        return None
    try:
        return ssl.create_default_context(cafile=None if certificate is None else str(certificate))
    except (OSError, ssl.SSLError) as error:
        raise RobotError(f"no certificate can be read from {certificate}: {error}") from None
