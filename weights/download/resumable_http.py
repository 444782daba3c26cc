"""Downloads one URL into one `.part` file over HTTP: tries again as often as needed, and resumes where it was cut.

Detectron's own download (utils/io.py:download_url) starts over every time, and trusts the length it is told.
"""

from __future__ import annotations

import contextlib
import datetime
import email.utils
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import requests
import urllib3

from detectron_gn.weights.download.addresses import Refused, check_address, redirect_target
from detectron_gn.weights.download.connection import deadline
from detectron_gn.weights.errors import DownloadFailed
from detectron_gn.weights.files.atomic import replacing
from detectron_gn.weights.files.json_file import read_json_record
from detectron_gn.weights.files.shared_folder import is_own_file, open_without_following, remove_link
from detectron_gn.weights.limits import MAX_DOWNLOAD_GIB, MAX_REDIRECTS, SPARE_BYTES
from detectron_gn.weights.progress import Progress, shown_progress

_CHUNK = 1 << 18

# Without a network no name is known; a name service that is only busy answers the second time.
_ATTEMPTS_WITHOUT_A_NAME = 2


@dataclass(frozen=True)
class Patience:
    """How long to wait and how often to try; seconds and bytes.

    Attributes:
        connect, read: seconds until a silent server counts as gone.
        attempts: tries in a row that bring no progress, before giving up.
        pause: seconds before the second try; doubled before each further one.
        longest_pause: the longest wait, also of those that a server asks for with Retry-After.
        slowest, window: fewer than `slowest` bytes in `window` seconds is a stall.
    """

    connect: float = 10.0
    read: float = 30.0
    attempts: int = 5
    pause: float = 1.0
    longest_pause: float = 60.0
    slowest: int = 16 << 10
    window: float = 30.0


class _TryAgain(Exception):
    """Something that may go better next time.

    Attributes:
        pause: what the server asked for.
        no_name: whether no server was reached at all, since nobody knows its name.
    """

    def __init__(self, cause: str, pause: float | None = None, *, no_name: bool = False) -> None:
        super().__init__(cause)
        self.pause = pause
        self.no_name = no_name


@dataclass
class _State:
    """What is known of the file on the server, kept beside the part so that another process can resume.

    `max_bytes`, which is not kept, is the largest size that is taken.
    """

    url: str
    validator: str | None = None
    size: int | None = None
    max_bytes: int = MAX_DOWNLOAD_GIB << 30

    @property
    def source(self) -> str:
        """What tells this file from those of other addresses, which may hold passwords."""
        return hashlib.sha256(self.url.encode()).hexdigest()


def get(url: str, session: requests.Session, patience: Patience) -> bytes | None:
    """The first 4096 bytes of a small text at `url`; None where the server has none. Raises Refused otherwise."""
    failure = ""
    for attempt in range(patience.attempts):
        time.sleep(patience.pause * (2 ** (attempt - 1)) if attempt else 0)
        try:
            with _answer(url, session, {}, patience) as response:
                if response.status_code in (403, 404, 410):
                    return None
                if response.status_code == 200:
                    return _small_body(response, patience)
                failure = f"the server answers {response.status_code}"
        except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            failure = _in_words(error)
            if _has_no_name(error) and attempt + 1 >= _ATTEMPTS_WITHOUT_A_NAME:
                break
    raise Refused(failure)


def _small_body(response: requests.Response, patience: Patience) -> bytes:
    """The first 4096 bytes; TimeoutError where they do not come in time."""
    body = b""
    with deadline(response, patience.window) as limit:
        try:
            while len(body) < 4096 and (piece := _read1(response, 4096)):
                body += piece
        except (urllib3.exceptions.HTTPError, OSError):
            if not limit.expired:
                raise
    if limit.expired:
        raise TimeoutError("timed out")
    return body


def fetch_part(
    url: str, part: Path, session: requests.Session, patience: Patience, max_bytes: int, progress: str | None = None
) -> int | None:
    """Bring the whole content of `url` into `part`; returns its size where the server told one.

    A part that is there already is resumed if the server still has the same file (ETag or Last-Modified).
    Raises Refused where the server has no such file, DownloadFailed where the disk is full, and Refused too
    after `patience.attempts` tries without progress.

    Args:
        progress: what the progress bar calls the file; None for no bar.
    """
    check_address(url)
    if not is_own_file(part):
        discard(part)
    state = _load_state(part, url)
    state.max_bytes = max_bytes
    failures = 0
    with contextlib.nullcontext() if progress is None else shown_progress(None, "B", progress) as bar:
        while True:
            before = part.stat().st_size if part.exists() else 0
            try:
                _attempt(state, part, session, patience, bar)
                return state.size
            except _TryAgain as failure:
                after = part.stat().st_size if part.exists() else 0
                failures = 1 if after >= before + patience.slowest else failures + 1
                if failures >= (_ATTEMPTS_WITHOUT_A_NAME if failure.no_name else patience.attempts):
                    raise Refused(f"{failure} ({failures} times in a row)") from None
                pause = patience.pause * 2 ** (failures - 1) if failure.pause is None else failure.pause
                if failure.pause is not None and pause > patience.longest_pause:
                    raise Refused(f"{failure}, and asks to wait {pause:.0f} s; try again later") from None
                time.sleep(min(pause, patience.longest_pause))


def discard(part: Path) -> None:
    """Forget a part and what was known of it."""
    part.unlink(missing_ok=True)
    _state_path(part).unlink(missing_ok=True)


def _attempt(state: _State, part: Path, session: requests.Session, patience: Patience, bar: Progress | None) -> None:
    """One request: resume or start over, and append what comes until the file is whole."""
    have = part.stat().st_size if part.exists() else 0
    if have and have == state.size:
        return
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if state.validator is not None:
            headers["If-Range"] = state.validator
    with _response(state.url, session, headers, patience) as response:
        start = _start(response, state, have)
        if start is None:
            discard(part)
            raise _TryAgain("the server answers with another part of the file than was asked for", 0.0)
        if start == have and have == state.size:
            return
        encoded = response.headers.get("Content-Encoding", "identity") != "identity"
        if response.status_code == 200:
            state.validator, state.size = _validator(response), None if encoded else _length(response)
        if (state.size or 0) > state.max_bytes:
            discard(part)
            raise Refused(f"the file has {state.size} bytes; {_too_large(state)}")
        if response.status_code == 200:
            _save_state(state, part)
        _check_space(part, (state.size or 0) - start)
        if bar is not None:
            bar.begin(state.size, start)
        try:
            with open(part, "r+b" if start else "wb", opener=open_without_following) as handle:
                handle.truncate(start)
                handle.seek(start)
                _copy(response, handle, state, patience, bar)
                handle.flush()
                os.fsync(handle.fileno())
        except (DownloadFailed, Refused):
            if state.size is None:  # nothing can be resumed
                discard(part)
            raise
    have = part.stat().st_size
    if state.size is not None and have < state.size:
        raise _TryAgain(f"the connection ended after {have} of {state.size} bytes")
    if state.size is not None and have > state.size:
        discard(part)
        raise _TryAgain(f"the server sent more than the {state.size} bytes it announced")


@contextlib.contextmanager
def _response(
    url: str, session: requests.Session, headers: dict[str, str], patience: Patience
) -> Iterator[requests.Response]:
    """The server's answer, whose status is 200, 206 or 416; every failure of the network in our own words."""
    try:
        with _answer(url, session, headers, patience) as response:
            status = response.status_code
            if status == 429 or status == 408 or status >= 500:
                raise _TryAgain(f"the server answers {status}", _retry_after(response))
            if status not in (200, 206, 416):
                raise Refused(f"the server answers {status} {response.reason or ''}".rstrip())
            yield response
    except (
        requests.exceptions.SSLError,
        requests.exceptions.InvalidSchema,
        requests.exceptions.InvalidURL,
        requests.exceptions.InvalidHeader,
    ) as error:
        raise Refused(_in_words(error)) from None
    except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError) as error:
        raise _TryAgain(_in_words(error), no_name=_has_no_name(error)) from None


@contextlib.contextmanager
def _answer(
    url: str, session: requests.Session, headers: dict[str, str], patience: Patience
) -> Iterator[requests.Response]:
    """The answer at the end of all redirects, each of which is checked; nothing of their bodies is read."""
    for _ in range(MAX_REDIRECTS + 1):
        try:
            response = session.get(
                url, headers=headers, stream=True, timeout=(patience.connect, patience.read)
            )
        except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError):
            raise
        except ValueError:  # from within a library, about an address or a header
            raise Refused("the server's answer makes no sense") from None
        except OSError as error:
            if "certificate" not in str(error):
                raise
            # It is no error of the network: requests found no file before it asked.
            raise Refused("the file that REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE names is not there") from None
        with response:
            if not response.is_redirect:
                yield response
                return
            url = redirect_target(response)
    raise Refused("the server redirects in a circle")


def _start(response: requests.Response, state: _State, have: int) -> int | None:
    """From which byte on the answer continues the part; None where it does not fit."""
    if response.status_code == 200:
        return 0
    told = response.headers.get("Content-Range", "").strip()
    match = re.fullmatch(r"bytes (?:([0-9]{1,18})-[0-9]{1,18}|\*)/([0-9]{1,18}|\*)", told)
    if match is None:
        return None
    total = int(match[2]) if match[2] != "*" else state.size
    if response.status_code == 416:
        if have == 0 or have != total:
            return None
        state.size = total
        return have
    if match[1] is None or int(match[1]) != have or (state.size is not None and total != state.size):
        return None
    state.size = total
    return have


def _copy(
    response: requests.Response, part: BinaryIO, state: _State, patience: Patience, bar: Progress | None
) -> None:
    """Append the body to `part`, watching for error pages, a server that only drips, and a body without an end."""
    since, received, have = time.monotonic(), 0, part.tell()
    checked = have
    # Within the framing of a body a server can drip too, so that no bytes come that could be counted.
    with deadline(response, 2 * patience.window) as limit:
        while True:
            try:
                chunk = _read1(response, _CHUNK)
            except (urllib3.exceptions.HTTPError, OSError):
                if not limit.expired:
                    raise
                chunk = b""
            if limit.expired:
                raise _TryAgain(f"only {received} bytes came in {2 * patience.window:.0f} s")
            if not chunk:
                return
            if have == 0 and chunk.lstrip()[:1] == b"<":
                raise Refused("the server sent a web page instead of the file (a login or error page?)")
            part.write(chunk)
            if bar is not None:
                bar.update(len(chunk))
            received, have = received + len(chunk), have + len(chunk)
            if have > state.max_bytes:
                raise Refused(f"the server sent {have} bytes and goes on; {_too_large(state)}")
            if have - checked > SPARE_BYTES // 2:
                _check_space(Path(part.name), 1)
                checked = have
            if time.monotonic() - since > patience.window:
                if received < patience.slowest:
                    raise _TryAgain(f"only {received} bytes came in {patience.window:.0f} s")
                since, received = time.monotonic(), 0
                limit.renew()


def _too_large(state: _State) -> str:
    return (
        f"more than {state.max_bytes / 2**30:g} GiB are not fetched: for a weights file of that size, set "
        "DETECTRON_GN_MAX_GIB to a larger number, or pass it to download as --max-gib"
    )


def _read1(response: requests.Response, most: int) -> bytes:
    """What is there of the body; `read` would wait for a whole chunk from a server that drips, whatever its size."""
    try:
        piece: bytes = response.raw.read1(most, decode_content=True)
        return piece
    except ValueError as error:  # http.client, about a chunk of negative size
        raise urllib3.exceptions.ProtocolError(str(error)) from None


def _length(response: requests.Response) -> int | None:
    """The announced size; None where there is none or it is no whole number."""
    text = response.headers.get("Content-Length", "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def _validator(response: requests.Response) -> str | None:
    """What If-Range needs: a strong ETag, else the date of the file."""
    tag = response.headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified")


def _retry_after(response: requests.Response) -> float | None:
    """Retry-After in seconds, whether the server says seconds or a date; None where it says neither."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        date = email.utils.parsedate_to_datetime(text)
    except (ValueError, OverflowError, TypeError, IndexError):
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=datetime.timezone.utc)
    return max(0.0, (date - datetime.datetime.now(datetime.timezone.utc)).total_seconds())


def _check_space(part: Path, needed: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if needed > 0 and free < needed + SPARE_BYTES:
        raise DownloadFailed(
            f"{part.parent}: {needed} bytes are needed but only {free} are free on that disk, of which "
            f"{SPARE_BYTES >> 20} MiB are to stay free: make room, or choose another cache"
        )


def _state_path(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _load_state(part: Path, url: str) -> _State:
    """What is known of the part; without that, or if it came from elsewhere, the part is of no use."""
    match read_json_record(_state_path(part)):
        case {"source": str() as source, "validator": (str() | None) as validator, "size": (int() | None) as size}:
            if source == _State(url).source and is_own_file(_state_path(part)):
                return _State(url, validator, size)
    discard(part)
    return _State(url)


def _save_state(state: _State, part: Path) -> None:
    remove_link(_state_path(part))
    with replacing(_state_path(part)) as temporary:
        content = {"source": state.source, "validator": state.validator, "size": state.size}
        temporary.write_text(json.dumps(content), "utf-8")


def _in_words(error: Exception) -> str:
    """A failure of the network in a few words; requests' own repeat addresses and class names."""
    if isinstance(error, requests.exceptions.SSLError):
        return "the server's certificate is not trusted"
    if isinstance(error, requests.exceptions.InvalidSchema | requests.exceptions.InvalidURL):
        return "it leads to an address that is not http or https"
    if isinstance(error, requests.exceptions.Timeout | urllib3.exceptions.TimeoutError | TimeoutError):
        return "the server does not answer in time"
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy cannot be reached"
    if isinstance(error, urllib3.exceptions.LocationParseError):
        return "its host name is none"
    if _has_no_name(error):
        return "its host cannot be found (is there a network?)"
    if isinstance(error, requests.exceptions.ChunkedEncodingError | urllib3.exceptions.HTTPError):
        return "the connection broke"
    return "the server cannot be reached"


def _has_no_name(error: BaseException) -> bool:
    """Whether the name of the server is not known to the name service, or there is none."""
    reason: object = error.args[0] if isinstance(error, requests.exceptions.ConnectionError) and error.args else error
    reason = getattr(reason, "reason", reason)
    return isinstance(reason, urllib3.exceptions.NameResolutionError)
