"""Turns a model id, a name, a URL or a path into a file on this disk: fetched once, checked, cached.

Answers to Detectron utils/io.py:cache_url. As there, the cache mirrors the path of the URL (all models are
called `model_final.pkl`), and the md5 is the server's own `URL.md5sum`. Beyond it, the sha256 of the first
trusted download is kept beside the file, and a file that differs from it is never used.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import os
import re
import stat
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal
from urllib.parse import quote, unquote, urlsplit
from uuid import uuid4

import requests

from detectron_gn.weights.catalog import CatalogEntry, below_base, catalog, lookup
from detectron_gn.weights.download import resumable_http
from detectron_gn.weights.download.addresses import Refused, check_address, is_protected
from detectron_gn.weights.download.connection import open_session
from detectron_gn.weights.download.resumable_http import Patience
from detectron_gn.weights.errors import (
    DownloadFailed,
    NotCached,
    NotPublished,
    UnreadableFile,
    WeightsError,
)
from detectron_gn.weights.files.atomic import publish, replacing, sync
from detectron_gn.weights.files.json_file import read_json_record
from detectron_gn.weights.files.lock import locked
from detectron_gn.weights.files.mapped_file import MappedFile
from detectron_gn.weights.files.shared_folder import remove_link
from detectron_gn.weights.formats import recognise
from detectron_gn.weights.limits import MAX_DOWNLOAD_GIB
from detectron_gn.weights.shown import without_secrets

Item = Literal["model", "boxes", "masks", "keypoints"]
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """Where to fetch from and where to keep it.

    Attributes:
        cache: the cache folder.
        base_urls: addresses below which the catalog's files are looked for, one after the other.
        offline: use the cache only.
        progress: show a progress bar on stderr; in a log, a line every half minute.
        patience: how long to wait for a server.
        max_bytes: the largest file that is fetched.
    """

    cache: Path
    base_urls: tuple[str, ...]
    offline: bool = False
    progress: bool = False
    patience: Patience = Patience()
    max_bytes: int = MAX_DOWNLOAD_GIB << 30


def options(
    cache: str | os.PathLike[str] | None = None,
    base_url: str | None = None,
    offline: bool | None = None,
    max_gib: float | None = None,
) -> Options:
    """Options from the command line, else from the environment, else the defaults.

    DETECTRON_GN_CACHE is the cache folder (`detectron-gn` in XDG_CACHE_HOME or ~/.cache without it),
    DETECTRON_GN_BASE_URL the base URL; it, and `base_url`, may hold several, separated by blanks.
    DETECTRON_GN_OFFLINE set to anything but 0 forbids the network. DETECTRON_GN_MAX_GIB is the size of the largest file
    that is fetched. Raises WeightsError where a value makes no sense.
    """
    environment = os.environ
    folder = cache or environment.get("DETECTRON_GN_CACHE") or _default_cache()
    bases = (base_url or environment.get("DETECTRON_GN_BASE_URL") or "").split() or catalog().base_url.split()
    if offline is None:
        offline = environment.get("DETECTRON_GN_OFFLINE", "0") not in ("", "0")
    most = _max_gib(environment.get("DETECTRON_GN_MAX_GIB")) if max_gib is None else max_gib
    return Options(Path(folder), tuple(bases), offline, progress=True, max_bytes=int(most * (1 << 30)))


def _max_gib(text: str | None) -> float:
    if not text:
        return MAX_DOWNLOAD_GIB
    try:
        most = float(text)
    except ValueError:
        most = math.nan
    if not 0 < most < math.inf:
        raise WeightsError(f"DETECTRON_GN_MAX_GIB is {text!r}, which is no number of GiB: set it to one such as 32")
    return most


def _default_cache() -> Path:
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "detectron-gn"
    except RuntimeError:
        raise WeightsError(
            "there is no home folder to keep downloads in: set DETECTRON_GN_CACHE to a folder of yours"
        ) from None


def resolve(source: str | int | os.PathLike[str], given: Options | None = None) -> Path:
    """The path of a SOURCE: an existing file as it is, else a model id, a name or a URL, downloaded.

    Raises WeightsError for what is none of these, and UnreadableFile, UnknownModel, NotPublished, NotCached or
    DownloadFailed, each with one sentence.
    """
    if not isinstance(source, str | int | os.PathLike):
        raise WeightsError(f"{source!r} names no model: give the path of a file, a model id or a URL")
    text = str(source).strip()
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*://", text) is None:
        # A number is a model id: the system would take it for an open file's.
        if not isinstance(source, int) and os.path.exists(source):
            return Path(source)
        if "/" in text or Path(text).suffix in (".pkl", ".h5", ".pth", ".safetensors"):
            raise UnreadableFile(text, "there is no such file")
    return fetch(text, given)


def fetch(source: int | str, given: Options | None = None, item: Item = "model") -> Path:
    """The path of a file of the catalog, or of any URL, in the cache; downloaded and checked if need be.

    `item` chooses between a catalog model and its published results on minival (`boxes`, `masks`, `keypoints`).
    Raises UnknownModel, NotPublished, NotCached or DownloadFailed, each with one sentence.
    """
    given = options() if given is None else given
    text = str(source).strip()
    if "://" not in text:
        entry = lookup(text)
        return _cached(_below_bases(_path_of(entry, item), entry.md5, f"{entry.names[0]} {item}", given), given)
    path_below = below_base(text, given.base_urls)
    if path_below is not None:
        # The catalog's files are asked for where the options say, whatever base URL was written down once.
        path_below = path_below.replace(":", "%3A")
        md5 = {entry.path: entry.md5 for entry in catalog().entries}.get(path_below)
        return _cached(_below_bases(path_below, md5, path_below.rpartition("/")[2], given), given)
    try:
        check_address(text)
    except Refused as error:
        raise DownloadFailed(f"{without_secrets(text)}: {error}") from None
    path = _path_elsewhere(text)
    return _cached(_Wanted((text,), path, None, path.rpartition("/")[2], ("a file in place of the URL",)), given)


@dataclass(frozen=True)
class _Wanted:
    """A file that is to be in the cache.

    Attributes:
        urls: where it is looked for, one after the other.
        path: where it is kept, below the cache folder.
        md5: where it is known beforehand.
        name: what the progress bar calls it.
        ways_on: what a user can do where it cannot be fetched.
    """

    urls: tuple[str, ...]
    path: str
    md5: str | None
    name: str
    ways_on: tuple[str, ...]


def _below_bases(path: str, md5: str | None, name: str, given: Options) -> _Wanted:
    """A file of the catalog, which mirrors may have."""
    urls = tuple(f"{base.rstrip('/')}/{path}" for base in given.base_urls)
    ways_on = (
        "a mirror: DETECTRON_GN_BASE_URL=URL, or --base-url URL of download",
        "the file from another machine: give it in place of the id",
        f"the same for scripts with ids: put it at {_place(given, path)} and set DETECTRON_GN_OFFLINE=1",
        "docs/weights.md, Without a network",
    )
    return _Wanted(urls, path, md5, name, ways_on)


def _path_of(entry: CatalogEntry, item: Item) -> str:
    if item in entry.files:
        return entry.files[item][0]
    if entry.state == "published":
        raise NotPublished(f"{entry.title} has no published {item}")
    raise NotPublished(
        f"{entry.title} is known by its results only, no file of it was ever published; training with "
        f"{entry.config} should give {entry.box_ap} box AP and {entry.mask_ap} mask AP. {entry.note}"
    )


def _path_elsewhere(url: str) -> str:
    """Where a URL outside the catalog is kept: `other/host/path`, each part a harmless file name."""
    parts = urlsplit(url)
    names = [quote(unquote(name), safe="") for name in parts.path.split("/") if name not in ("", ".", "..")]
    if not names:
        raise DownloadFailed(f"{without_secrets(url)}: names no file")
    if parts.query:
        # It may hold a token, so that only its digest becomes part of a name.
        name = Path(names[-1])
        names[-1] = f"{name.stem}-{hashlib.sha256(parts.query.encode()).hexdigest()[:16]}{name.suffix}"
    host = quote(parts.netloc.rpartition("@")[2], safe="")
    return "/".join(["other", host, *(f"_{name}" if _RESERVED.match(name) else name for name in names)])


_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\.|$)|\.+$")
"""Names that mean a device on Windows, or a folder."""


@dataclass(frozen=True)
class _Record:
    """What is kept beside a cached file, under its name and `.json`."""

    url: str
    size: int
    sha256: str
    md5: str
    modified_ns: int
    changed_ns: int = 0
    """When the file or its name changed last, which nobody can set; 0 in records of older versions."""


def _cached(wanted: _Wanted, given: Options) -> Path:
    """The file in the cache, fetched from the first of its URLs that has it."""
    target = _place(given, wanted.path)
    url = without_secrets(wanted.urls[0])
    if not target.resolve().is_relative_to(given.cache.resolve()):
        raise DownloadFailed(f"{url}: its path leads out of the cache")
    try:
        if target.is_dir():
            raise DownloadFailed(f"{target}: is a folder where a file belongs; move it away")
        if _is_trusted(target, given.cache):
            return target
        if given.offline:
            if target.exists() and _read_record(target) is None and not _may_be_planted(target, given.cache):
                return target
            raise NotCached(
                f"{wanted.name} is not in the cache, and offline mode is on",
                [f"{target}: there is no such file"],
                ["unset DETECTRON_GN_OFFLINE", *(wanted.ways_on[1:] or wanted.ways_on)],
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target.with_name(target.name + ".lock")) as has_lock:
            if not _is_trusted(target, given.cache):
                _download(wanted, target, given, has_lock)
    except OSError as error:
        place = error.filename or target
        way_on = "let DETECTRON_GN_CACHE name another cache"
        raise DownloadFailed(f"{place}: {error.strerror or error}; {way_on}") from None
    return target


def _place(given: Options, path: str) -> Path:
    """Where a file is kept."""
    return given.cache.joinpath(*path.split("/"))


def _is_trusted(target: Path, cache: Path) -> bool:
    """Whether the file is the one of its record: untouched since then, or else of the same sha256."""
    record = _read_record(target)
    if record is None or not target.exists():
        return False
    if any(_may_be_planted(path, cache) for path in (target, _record_path(target))):
        return False
    found = target.stat()
    if found.st_size != record.size:
        return False
    if (found.st_mtime_ns, found.st_ctime_ns) == (record.modified_ns, record.changed_ns):
        return True
    if _digests(target)[1] != record.sha256:
        return False
    _note_times(target, record)
    return True


def _may_be_planted(path: Path, cache: Path) -> bool:
    """Whether anybody can have put the file there: everybody may write to a folder on its way in the cache.

    Files of this user, of root and of the cache's owner are none of anybody's.
    """
    if not hasattr(os, "geteuid"):
        return False
    folders = [folder for folder in path.parents if folder.is_relative_to(cache)]
    owners = {os.geteuid(), 0, cache.stat().st_uid}
    return any(folder.stat().st_mode & stat.S_IWOTH for folder in folders) and path.lstat().st_uid not in owners


def _download(wanted: _Wanted, target: Path, given: Options, has_lock: bool) -> None:
    """Try each mirror in turn; what failed on each is in the error."""
    failures = []
    if wanted.md5 is None and not all(is_protected(url) for url in wanted.urls):
        _LOG.warning(
            f"{without_secrets(wanted.urls[0])}: http does not protect a file: whoever is on the way can change it "
            "together with its md5; use an https address where there is one"
        )
    with open_session(given.patience.window) as session:
        for url in wanted.urls:
            # Where the disk cannot lock, each process writes a part of its own, and none is resumed.
            part = target.with_name(target.name + (".part" if has_lock else f".{uuid4().hex}.part"))
            try:
                _download_from(url, part, target, wanted, session, given)
                return
            except Refused as error:
                failures.append(f"{without_secrets(url)}: {error}")
            finally:
                if not has_lock:
                    resumable_http.discard(part)
    raise DownloadFailed(f"{wanted.name} cannot be fetched", failures, wanted.ways_on)


def _download_from(
    url: str, part: Path, target: Path, wanted: _Wanted, session: requests.Session, given: Options
) -> None:
    """Fetch, check and publish; a wrong content is fetched once more from the beginning, then set aside."""
    check_address(url)
    reference = wanted.md5 or _published_md5(url, session, given.patience)
    if target.exists():
        # Put there by hand, or altered since it was fetched.
        if _problem(target, target, None, reference) is None:
            _publish(target, target, url)
            return
        _set_aside(target)
    resumed = part.is_file() and not part.is_symlink()
    progress = wanted.name if given.progress else None
    for again in (resumed, False):
        size = resumable_http.fetch_part(url, part, session, given.patience, given.max_bytes, progress)
        problem = _problem(part, target, size, reference)
        if problem is None:
            _publish(part, target, url)
            return
        if again:
            resumable_http.discard(part)
            continue
        aside = _set_aside(part, target)
        resumable_http.discard(part)
        raise Refused(f"{problem}; what came is kept as {aside.name} and is not used")


def _problem(part: Path, target: Path, size: int | None, md5: str | None) -> str | None:
    """Why the whole part is not the file; None where it is. The length comes before the sums."""
    have = part.stat().st_size
    if size is not None and have != size:
        return f"it is short: {have} of {size} bytes"
    if size is None and md5 is None:
        return "the server tells neither its length nor its md5, so that it cannot be trusted"
    found_md5, found_sha256 = _digests(part)
    if md5 is not None and found_md5 != md5:
        return f"its md5 is {found_md5}, but it should be {md5}"
    record = _read_record(target)
    if record is not None and record.sha256 != found_sha256:
        return "its sha256 is not that of the first download; if the file was replaced, delete the .json beside it"
    if target.suffix != ".json":
        try:
            with MappedFile(part) as file:
                recognise(file)
        except WeightsError as error:
            return str(error).split(": ", 1)[-1]
    return None


def _publish(part: Path, target: Path, url: str) -> None:
    """Write the record, then rename: a process killed in between leaves a part that is whole."""
    md5, sha256 = _digests(part)
    sync(part)
    found = part.stat()
    record = _Record(without_secrets(url), found.st_size, sha256, md5, found.st_mtime_ns)
    _write_record(target, record)
    publish(part, target)
    if part != target:
        resumable_http.discard(part)
    _note_times(target, record)


def _note_times(target: Path, record: _Record) -> None:
    """Note when the file was changed last, so that it need not be read each time; where that cannot be, it is read."""
    found = target.stat()
    with contextlib.suppress(WeightsError):
        _write_record(target, replace(record, modified_ns=found.st_mtime_ns, changed_ns=found.st_ctime_ns))


def _write_record(target: Path, record: _Record) -> None:
    remove_link(_record_path(target))
    with replacing(_record_path(target)) as temporary:
        temporary.write_text(json.dumps(asdict(record), indent=1), "utf-8")


def _published_md5(url: str, session: requests.Session, patience: Patience) -> str | None:
    """The md5 at `URL.md5sum` (Detectron utils/io.py:_get_reference_md5sum); None where there is none."""
    body = resumable_http.get(re.sub("([?#]|$)", r".md5sum\1", url, count=1), session, patience)
    match = re.match(rb"\s*\\?([0-9a-fA-F]{32})(\s|$)", body or b"")
    return match[1].decode().lower() if match else None


def _digests(path: Path) -> tuple[str, str]:
    """(md5, sha256) of a file, in one pass."""
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    with open(path, "rb") as handle:
        while chunk := handle.read(1 << 20):
            md5.update(chunk)
            sha256.update(chunk)
    return md5.hexdigest(), sha256.hexdigest()


def _record_path(target: Path) -> Path:
    return target.with_name(target.name + ".json")


def _read_record(target: Path) -> _Record | None:
    stored = read_json_record(_record_path(target))
    try:
        return None if stored is None else _Record(**stored)
    except TypeError:
        return None


def _set_aside(path: Path, target: Path | None = None) -> Path:
    """Rename a wrong file so that nobody takes it for the right one, and return its new path."""
    name = (target or path).name
    aside = path.with_name(f"{name}.wrong-{uuid4().hex[:8]}")
    os.replace(path, aside)
    return aside
