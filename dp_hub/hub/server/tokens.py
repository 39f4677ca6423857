"""Who may write: users and the sha256 of their tokens, and signed links for uploads.

The server keeps digests only. A new token is written once into a file that its user reads
(``HF_TOKEN=$(cat FILE)``), so that it shows up in no terminal, log or process list.
"""

import hashlib
import hmac
import json
import re
import secrets
import time
from pathlib import Path

from dp_hub.errors import ConfigError
from dp_hub.hub.disk import write_atomic
from dp_hub.hub.server.store import is_user_name

LINK_LIFE_S = 24 * 3600


class Tokens:
    """The users of a Hub folder, in ``root/tokens.json`` (readable by its owner only)."""

    def __init__(self, root: Path) -> None:
        self._path = root / "tokens.json"
        self._digests: dict[str, str] = {}
        self._secret = secrets.token_hex(32)
        if self._path.is_file():
            self._read()
        else:
            self._write()

    @property
    def users(self) -> list[str]:
        return sorted(self._digests)

    def user(self, token: str) -> str | None:
        """Whose token this is, or None."""
        digest = _digest(token)
        for user, known in self._digests.items():
            if hmac.compare_digest(digest, known):
                return user
        return None

    def issue(self, user: str, file: Path) -> None:
        """Give ``user`` a new token, written into ``file``; an older one stops working.

        Raises:
            ConfigError: the name can't be a user's.
        """
        if not is_user_name(user):
            raise ConfigError(f"{user!r} can't be a user name: letters, digits, '.', '_' and '-'")
        token = f"hf_{secrets.token_urlsafe(32)}"
        write_atomic(file, token.encode(), mode=0o600)
        self._digests[user] = _digest(token)
        self._write()

    def sign(self, text: str) -> str:
        """A signature that lets its bearer do the one thing that ``text`` says, for a day."""
        expires = int(time.time()) + LINK_LIFE_S
        return f"{expires}-{self._mac(text, expires)}"

    def signed(self, text: str, signature: str) -> bool:
        """Whether ``signature`` is ours, for this text, and still good."""
        expires, _, mac = signature.partition("-")
        if not re.fullmatch(r"[0-9]{1,12}", expires) or int(expires) < time.time():
            return False
        return hmac.compare_digest(mac.encode(), self._mac(text, int(expires)).encode())

    def _mac(self, text: str, expires: int) -> str:
        key = bytes.fromhex(self._secret)
        return hmac.new(key, f"{expires} {text}".encode(), hashlib.sha256).hexdigest()

    def _read(self) -> None:
        try:
            stored = json.loads(self._path.read_bytes())
            self._digests, self._secret = dict(stored["users"]), str(stored["link_secret"])
        except (ValueError, KeyError, TypeError):
            raise ConfigError(
                f"{self._path} is damaged",
                hint="remove it to start again with new tokens; repositories are kept",
            ) from None

    def _write(self) -> None:
        stored = {"users": self._digests, "link_secret": self._secret}
        write_atomic(self._path, json.dumps(stored, indent=1).encode(), mode=0o600)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
