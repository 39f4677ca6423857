"""huggingface_hub, set up for the Hub in use, and its errors in plain words.

The one place that decides about the environment: huggingface_hub reads HF_ENDPOINT and the xet
switch when it is imported, which may have happened before dp_hub had a say.
"""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dp_hub.errors import HubError
from dp_hub.hub import forking  # noqa: F401 - from now on it looks after forks

if TYPE_CHECKING:
    from huggingface_hub import HfApi

HOME = "https://huggingface.co"


def endpoint() -> str:
    """The address of the Hub in use, without a slash at the end."""
    return (os.environ.get("HF_ENDPOINT") or HOME).rstrip("/")


def connect() -> "HfApi":
    """A client of the Hub in use. The token is found by the library and kept nowhere else."""
    _settle_xet()
    from huggingface_hub import HfApi

    from dp_hub import __version__

    return HfApi(endpoint=endpoint(), library_name="dp_hub", library_version=__version__)


def has_token() -> bool:
    """Whether the library finds a token to send."""
    from huggingface_hub import get_token

    return get_token() is not None


def _settle_xet() -> None:
    # Other Hubs have no xet, and huggingface_hub then fails on large files (its default is on).
    if endpoint() == HOME or "HF_HUB_DISABLE_XET" in os.environ:
        return
    os.environ["HF_HUB_DISABLE_XET"] = "1"
    if "huggingface_hub" in sys.modules:
        from huggingface_hub import constants

        constants.HF_HUB_DISABLE_XET = True


@contextmanager
def quiet_in_logs() -> Iterator[None]:
    """No progress bars inside the block unless stderr is a terminal; they fill logs."""
    from huggingface_hub import constants
    from huggingface_hub.utils import disable_progress_bars

    if sys.stderr.isatty() or constants.HF_HUB_DISABLE_PROGRESS_BARS is not None:
        yield
        return
    with disable_progress_bars():
        yield


class Unreachable(HubError):
    """Nobody answered at the Hub's address, or only with a server's error."""


@contextmanager
def explained(repo_id: str) -> Iterator[None]:
    """Turn what huggingface_hub raises inside the block into a HubError that says what to do."""
    from huggingface_hub.errors import (
        HTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    )

    try:
        yield
    except OfflineModeIsEnabled:
        raise _offline() from None
    except HTTPError as error:
        raise _explain(error, repo_id) from error
    except (LocalEntryNotFoundError, ConnectionError) as error:
        raise unreachable(error) from error
    except json.JSONDecodeError as error:
        raise HubError(
            f"what answers at {endpoint()} is no Hub, or its answers are damaged: {error}",
            hint="check HF_ENDPOINT, and whether the network asks for a login",
        ) from error
    except (RuntimeError, ValueError) as error:
        # Uploads in threads and forced downloads wrap the answer of the Hub.
        if isinstance(error.__cause__, OfflineModeIsEnabled):
            raise _offline() from None
        if isinstance(error.__cause__, HTTPError):
            raise _explain(error.__cause__, repo_id) from error
        raise
    except OSError as error:
        # A full disk, or a body of the wrong length.
        raise HubError(f"{repo_id}: {error}") from error


@contextmanager
def no_folder(name: str) -> Iterator[None]:
    """Around asking the Hub for a name that may be a mistyped folder: the error says both."""
    try:
        yield
    except HubError as error:
        message = f"there is no folder {name}, and as a name on the Hub: {error.message}"
        raise type(error)(message, hint=error.hint) from error


def unreachable(error: Exception) -> Unreachable:
    """Nobody answers at the Hub's address."""
    return Unreachable(
        f"the Hub at {endpoint()} can't be reached: {error}",
        hint="check the network and HF_ENDPOINT",
    )


def _offline() -> Unreachable:
    return Unreachable(
        "HF_HUB_OFFLINE is set, so the Hub is not asked", hint="unset it to go online"
    )


def _explain(error: Any, repo_id: str) -> HubError:
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

    if not isinstance(error, HfHubHTTPError):
        return unreachable(error)
    status, said = error.response.status_code, _said(error)
    if status == 401 and "credentials" in said:
        return HubError(
            f"the Hub at {endpoint()} does not know the token it was sent",
            hint="check HF_TOKEN, or log in again with `hf auth login`",
        )
    if isinstance(error, RepositoryNotFoundError):
        return missing(repo_id, "repository")
    if status in (401, 403):
        return HubError(f"the Hub at {endpoint()} refuses access to {repo_id}: {said}", hint=TOKEN)
    if status == 412:
        return HubError(
            f"{repo_id} has changed on the Hub while this was being pushed; nothing was published",
            hint="look at what is there now (dp-hub pull), then push again",
        )
    if status >= 500:
        return Unreachable(
            f"the Hub at {endpoint()} is in trouble: {status} {said}", hint="try again later"
        )
    return HubError(f"the Hub at {endpoint()} refuses for {repo_id}: {status} {said}")


TOKEN = (
    "HF_TOKEN must hold a token that may write there: `dp-hub serve` prints how to set it, "
    "https://huggingface.co/settings/tokens makes one for huggingface.co"
)


def missing(repo_id: str, what: str) -> HubError:
    """Not there, or private: the Hub doesn't say which."""
    if has_token():
        hint = "check the name; if it is private, HF_TOKEN must be its owner's"
    else:
        hint = "check the name; if it is private, set HF_TOKEN or run `hf auth login`"
    return HubError(f"no {what} {repo_id} at {endpoint()}, or it is private", hint=hint)


def _said(error: Any) -> str:
    """The Hub's own sentence, without the library's and on one line."""
    text = error.response.headers.get("X-Error-Message") or getattr(error, "server_message", None)
    return " ".join((text or str(error)).split())
