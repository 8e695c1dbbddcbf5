"""The hub's errors as one line each."""

from __future__ import annotations

import contextlib
import http
import re
from collections.abc import Iterator, Mapping

from huggingface_hub import constants

from clip_jax.errors import InputError
from converters.torch_unpickler import safe_repr

MAX_REASON = 300  # characters of what a library or a server says


class UnreachableError(InputError):
    """Report that the hub cannot be reached: no network, offline mode, or an outage."""


class WrongRangeError(InputError):
    """Report that a range of a file is not the requested one; the whole file may be had."""


def status_error(status: int, headers: Mapping[str, str], where: str, repo: str) -> InputError:
    """Return the error for a status that is no success. The response's body is not read.

    UnreachableError for 429 and 5xx, which pass.
    """
    hub = constants.ENDPOINT
    code = headers.get("X-Error-Code", "")
    answer = f"{where}: {hub} answered {_phrase(status)}"
    if status >= 500:
        return UnreachableError(answer)
    if status == 429:
        return UnreachableError(f"{answer}; wait some minutes, or set HF_TOKEN")
    if code == "GatedRepo":
        return InputError(f"{answer}: a gated repository; ask at {hub}/{repo}, then set HF_TOKEN")
    if status == 416:
        return WrongRangeError(answer)
    if status == 401 or (status == 404 and code in ("", "RepoNotFound")):
        return InputError(
            f"{where}: {hub} has no such repository, or a private one ({_phrase(status)}); check "
            "the name, or set HF_TOKEN"
        )
    if status == 403:
        return InputError(f"{answer}; set an HF_TOKEN that may do this")
    if status == 404:
        return InputError(f"{answer}; it lists what it does not have, so run the same again")
    return InputError(f"{answer}; expected 200; check HF_ENDPOINT, or try again later")


def _phrase(status: int) -> str:
    try:
        named = f"{status} {http.HTTPStatus(status).phrase}"
    except ValueError:
        named = str(status)
    return f"Server error '{named}'" if status >= 500 else named


@contextlib.contextmanager
def hub_errors(repo: str) -> Iterator[None]:
    """Turn errors of huggingface_hub, its HTTP client and the file system into InputError."""
    # Unlike the package, which imports what is asked for, these import a client of HTTP at once.
    from huggingface_hub import errors

    hub = constants.ENDPOINT
    try:
        yield
    except InputError:
        raise
    except errors.HFValidationError as error:
        raise InputError(f"{safe_repr(repo)} is no repository as OWNER/NAME") from error
    except errors.OfflineModeIsEnabled as error:
        raise UnreachableError(f"{repo}: HF_HUB_OFFLINE is set") from error
    except errors.HfHubHTTPError as error:
        response = error.response
        raise status_error(response.status_code, response.headers, repo, repo) from error
    except errors.HTTPError as error:
        raise UnreachableError(f"{repo}: {hub} cannot be reached ({one_line(error)})") from error
    except OSError as error:
        raise InputError(f"{repo}: {one_line(error)}; run the same again") from error
    except Exception as error:  # of a library that read what is no answer of a hub
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise InputError(f"{repo}: {hub} does not answer as a hub ({reason})") from error


def one_line(error: BaseException) -> str:
    """Return the first line of an error's text, truncated, with control characters escaped."""
    text = str(error).strip() or type(error).__name__
    line = re.sub(r"\s*\(Request ID:[^)]*\)", "", text.splitlines()[0]).rstrip(". ")
    escaped = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line[:MAX_REASON])
    return escaped + "..." * (len(line) > MAX_REASON)
