"""Every fault of a server, a network, a disk and a neighbour: recovered from, or told in one sentence."""

import errno
import gzip
import hashlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from detectron_gn.weights.catalog import catalog, lookup
from detectron_gn.weights.download import cache as download
from detectron_gn.weights.download import resumable_http as transfer
from detectron_gn.weights.download.cache import Options, fetch, options, resolve
from detectron_gn.weights.errors import (
    DownloadFailed,
    NotCached,
    NotObtained,
    NotPublished,
    UnknownModel,
    UnreadableFile,
    WeightsError,
)
from tests.helpers import http_server as faults
from tests.helpers.http_server import Server
from tests.weights.download.conftest import MODEL, PATH


def final(given: Options) -> Path:
    return given.cache / PATH[1:]


def part(given: Options) -> Path:
    return final(given).with_name("model_final.pkl.part")


def refused(given: Options, words: str, source: int | str = MODEL) -> str:
    """Fetching fails with one short sentence that holds `words`, and no final file is there."""
    with pytest.raises(WeightsError, match=words) as caught:
        fetch(source, given)
    sentence = str(caught.value)
    assert "\n" not in sentence and len(sentence.partition("; ways on: ")[0]) < 600
    assert not final(given).exists()
    return sentence


def test_cache_mirrors_the_path_of_the_url(given: Options, content: bytes) -> None:
    path = fetch(MODEL, given)
    assert path == given.cache / (lookup(MODEL).path or "") and path.read_bytes() == content
    assert "coco_2014_train%3Acoco_2014_valminusminival" in str(path)
    assert not part(given).exists()


def test_second_call_asks_nobody(given: Options, server: Server) -> None:
    fetch(MODEL, given)
    server.requests.clear()
    fetch(MODEL, given)
    assert server.requests == []


@pytest.mark.parametrize("form", ["48616381", " 48616381 ", 48616381, "e2e_mask_rcnn_R-50-FPN_2x_gn"])
def test_id_and_name_lead_to_the_same_file(form: int | str, given: Options) -> None:
    assert fetch(form, given) == final(given)


@pytest.mark.parametrize(
    "base",
    ["https://s3-us-west-2.amazonaws.com/detectron", "https://dl.fbaipublicfiles.com/detectron", "{server}"],
)
def test_urls_of_today_and_of_the_old_s3_are_asked_for_at_the_base_url(
    base: str, given: Options, server: Server, content: bytes
) -> None:
    for path in PATH, PATH.replace("%3A", ":"):
        assert fetch(base.format(server=server.url) + path, given) == final(given)
    assert len(server.gets(PATH)) == 1


def test_published_results_are_fetched_too(given: Options, server: Server) -> None:
    server.files["/" + (lookup(MODEL).boxes or "")] = b"[]"
    assert fetch(MODEL, given, "boxes").read_bytes() == b"[]"


def test_backbones_have_no_results(given: Options) -> None:
    with pytest.raises(NotPublished, match="has no published boxes"):
        fetch(47261647, given, "boxes")


@pytest.mark.parametrize("model", [56421872, 56421911, 49025460, 49024951])
def test_models_without_a_file_say_how_to_reproduce_them(model: int, given: Options, server: Server) -> None:
    with pytest.raises(NotPublished, match="no file of it was ever published") as caught:
        fetch(model, given)
    entry = lookup(model)
    assert str(entry.config) in str(caught.value) and f"{entry.box_ap} box AP" in str(caught.value)
    assert server.requests == []


def test_other_urls_are_kept_apart(given: Options, server: Server, content: bytes) -> None:
    server.files["/a/..%2Fmy%20model.pkl?x=1"] = content
    other = replace(given, base_urls=("http://127.0.0.1:1",))
    path = fetch(server.url + "/a/..%2fmy%20model.pkl?x=1", other)
    assert path.read_bytes() == content and path.is_relative_to(given.cache / "other")
    assert re.fullmatch(r"\.\.%2Fmy%20model-[0-9a-f]{16}\.pkl", path.name)


# Resuming.


@pytest.mark.parametrize("have", [0, 1, 200_000, -1, None])
@pytest.mark.parametrize("reset", [True, False])
def test_cut_download_is_resumed(have: int | None, reset: bool, given: Options, server: Server, content: bytes) -> None:
    server.faults[PATH] = [faults.cut(len(content) if have is None else have % len(content), reset)]
    assert fetch(MODEL, given).read_bytes() == content
    ranges = [headers.get("range") for headers in server.gets(PATH)]
    assert ranges[0] is None and len(ranges) <= 2


def test_resume_sends_range_and_if_range(given: Options, server: Server, content: bytes) -> None:
    server.faults[PATH] = [faults.cut(1000)]
    fetch(MODEL, given)
    second = server.gets(PATH)[1]
    assert second["range"] == "bytes=1000-" and second["if-range"] == '"' + hashlib.md5(content).hexdigest() + '"'


def test_connection_that_breaks_again_and_again_makes_progress(given: Options, server: Server, content: bytes) -> None:
    server.faults[PATH] = [faults.cut(20_000, reset=bool(i % 2)) for i in range(15)]
    assert fetch(MODEL, given).read_bytes() == content
    assert len(server.gets(PATH)) == 16


def test_part_of_another_process_is_resumed(given: Options, server: Server, content: bytes) -> None:
    server.faults[PATH] = [faults.cut(5000)] + [faults.status(503)] * 3
    refused(given, "answers 503")
    assert part(given).stat().st_size == 5000
    fetch(MODEL, given)
    assert server.gets(PATH)[-1]["range"] == "bytes=5000-" and final(given).read_bytes() == content


def test_server_that_ignores_range_starts_over(given: Options, server: Server, content: bytes) -> None:
    server.faults[PATH] = [faults.cut(5000), faults.whole()]
    assert fetch(MODEL, given).read_bytes() == content


def test_206_with_the_wrong_start_is_not_appended(given: Options, server: Server, content: bytes) -> None:
    rest = content[7 : 7 + len(content) - 5000]  # as long as what was asked for
    wrong = faults.body(rest, code=206, Content_Range=f"bytes 7-{6 + len(rest)}/{len(content)}")
    nonsense = faults.body(content, code=206, Content_Range="bytes nonsense")
    server.faults[PATH] = [faults.cut(5000), wrong, faults.cut(5000), nonsense]
    assert fetch(MODEL, given).read_bytes() == content


def test_416_when_the_part_is_whole_means_done(given: Options, server: Server, content: bytes) -> None:
    part(given).parent.mkdir(parents=True)
    part(given).write_bytes(content)
    state = {"url": server.url + PATH, "validator": None, "size": None}
    part(given).with_name(part(given).name + ".json").write_text(json.dumps(state))
    assert fetch(MODEL, given).read_bytes() == content
    assert len(server.gets(PATH)) == 1


def test_416_when_the_part_is_too_long_starts_over(given: Options, server: Server, content: bytes) -> None:
    part(given).parent.mkdir(parents=True)
    part(given).write_bytes(content + b"more")
    state = {"url": server.url + PATH, "validator": None, "size": None}
    part(given).with_name(part(given).name + ".json").write_text(json.dumps(state))
    assert fetch(MODEL, given).read_bytes() == content


def test_file_that_changes_between_attempts_is_fetched_whole(given: Options, server: Server, content: bytes) -> None:
    server.etag = '"old"'
    server.faults[PATH] = [faults.cut(5000)]

    def replaced(handler: Any) -> bool:
        server.etag = '"new"'
        return False

    server.faults[PATH].append(replaced)
    assert fetch(MODEL, given).read_bytes() == content


def test_part_of_unknown_origin_is_not_trusted(given: Options, server: Server, content: bytes) -> None:
    part(given).parent.mkdir(parents=True)
    part(given).write_bytes(b"x" * 5000)
    assert fetch(MODEL, given).read_bytes() == content
    assert "range" not in server.gets(PATH)[0]


def test_resumed_file_with_a_wrong_md5_is_fetched_once_more(given: Options, server: Server, content: bytes) -> None:
    part(given).parent.mkdir(parents=True)
    part(given).write_bytes(b"x" * 5000)
    source = hashlib.sha256((server.url + PATH).encode()).hexdigest()
    state = {"source": source, "validator": None, "size": len(content)}
    part(given).with_name(part(given).name + ".json").write_text(json.dumps(state))
    assert fetch(MODEL, given).read_bytes() == content
    assert [headers.get("range") for headers in server.gets(PATH)] == ["bytes=5000-", None]


# Lengths and encodings.


@pytest.mark.parametrize("length", ["-5", "many", "1e6", ""])
def test_senseless_content_length_counts_as_none(length: str, given: Options, server: Server, content: bytes) -> None:
    server.faults[PATH] = [faults.body(content, length)]
    assert fetch(MODEL, given).read_bytes() == content


def test_missing_content_length_relies_on_the_md5(given: Options, server: Server, content: bytes) -> None:
    server.faults[PATH] = [faults.body(content, None)]
    assert fetch(MODEL, given).read_bytes() == content


def test_neither_length_nor_md5_is_not_trusted(given: Options, server: Server, content: bytes) -> None:
    server.files[PATH + ".md5sum"] = b"no idea"
    server.faults[PATH] = [faults.body(content, None)]
    refused(given, "neither its length nor its md5")


def test_content_length_too_large_is_told_as_short(given: Options, server: Server, content: bytes) -> None:
    server.faults[PATH] = [faults.body(content, str(len(content) + 9))] * 9
    server.faults[PATH] += [faults.status(416)] * 9
    refused(given, "connection (broke|ended)")


def test_content_length_too_small_is_a_wrong_md5(given: Options, server: Server, content: bytes) -> None:
    server.faults[PATH] = [faults.body(content, str(len(content) - 9))] * 9
    refused(given, "its md5 is [0-9a-f]{32}, but it should be")


def test_chunked_answer_is_read(given: Options, server: Server, content: bytes) -> None:
    server.faults[PATH] = [faults.chunked]
    assert fetch(MODEL, given).read_bytes() == content


def test_gzip_that_nobody_asked_for_is_unpacked(given: Options, server: Server, content: bytes) -> None:
    server.faults[PATH] = [faults.body(gzip.compress(content), Content_Encoding="gzip")]
    assert fetch(MODEL, given).read_bytes() == content
    assert server.gets(PATH)[0]["accept-encoding"] == "identity"


# Statuses, redirects, slowness.


@pytest.mark.parametrize("code", [401, 403, 404, 410, 451])
def test_refusal_is_not_asked_again(code: int, given: Options, server: Server) -> None:
    server.faults[PATH] = [faults.status(code)]
    refused(given, f"the server answers {code}")
    assert len(server.gets(PATH)) == 1


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503])
def test_trouble_that_passes_is_waited_for(code: int, given: Options, server: Server, content: bytes) -> None:
    server.faults[PATH] = [faults.status(code)] * 2
    assert fetch(MODEL, given).read_bytes() == content


def test_trouble_that_stays_ends_after_the_attempts(given: Options, server: Server) -> None:
    server.faults[PATH] = [faults.status(500)] * 9
    refused(given, r"the server answers 500 \(3 times in a row\)")
    assert len(server.gets(PATH)) == 3


def test_retry_after_is_heeded_in_seconds_and_as_a_date(given: Options, server: Server, content: bytes) -> None:
    past = "Wed, 21 Oct 2015 07:28:00 GMT"
    server.faults[PATH] = [faults.status(429, Retry_After="0"), faults.status(503, Retry_After=past)]
    assert fetch(MODEL, given).read_bytes() == content


def test_retry_after_of_an_hour_is_told_not_slept(given: Options, server: Server) -> None:
    server.faults[PATH] = [faults.status(429, Retry_After="3600")]
    refused(given, "answers 429, and asks to wait 3600 s; try again later")


def test_redirect_to_another_host_is_followed_without_credentials(
    given: Options, server: Server, content: bytes
) -> None:
    target = server.url.replace("127.0.0.1", "localhost") + "/elsewhere.pkl"
    server.files["/elsewhere.pkl"] = content
    server.faults[PATH] = [faults.status(302, Location=target)]
    with_password = replace(given, base_urls=(server.url.replace("http://", "http://me:secret@"),))
    assert fetch(MODEL, with_password).read_bytes() == content
    assert server.gets(PATH)[0]["authorization"].startswith("Basic ")
    assert "authorization" not in server.gets("/elsewhere.pkl")[0]


def test_password_is_in_no_message_and_no_record(given: Options, server: Server) -> None:
    with_password = replace(given, base_urls=(server.url.replace("http://", "http://me:secret@"),))
    server.faults[PATH] = [faults.status(404)]
    assert "secret" not in refused(with_password, "answers 404")
    fetch(MODEL, with_password)
    assert "secret" not in final(given).with_name("model_final.pkl.json").read_text()


def test_redirect_in_a_circle_is_named(given: Options, server: Server) -> None:
    server.faults[PATH] = [faults.status(302, Location=PATH)] * 20
    refused(given, "redirects in a circle")


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://x/y", "http://169.254.169.254/latest/meta-data"])
def test_redirect_to_a_strange_address_is_refused(target: str, given: Options, server: Server) -> None:
    server.faults[PATH] = [faults.status(302, Location=target)]
    refused(given, "only http and https|own infrastructure")


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "ftp://x/y.pkl", "http://169.254.169.254/a", "gopher://x/y", "http://[::1/a", "http:///a"]
    + ["http://x/\udcff.pkl"]
    + ["http://.x/a", "http://a b/c", "http://x:99999/a", "http://x/", "http://\u2100/a", f"http://{'x' * 70}/a"],
)
def test_strange_addresses_are_refused(url: str, given: Options) -> None:
    with pytest.raises(
        DownloadFailed,
        match="only http|own infrastructure|no address|names no file|http or https|reached|host name is none",
    ):
        resolve(url, given)


def test_silent_server_times_out(given: Options, server: Server, content: bytes) -> None:
    server.faults[PATH] = [faults.silence]
    assert fetch(MODEL, given).read_bytes() == content


def test_server_that_only_drips_is_given_up(given: Options, server: Server) -> None:
    server.faults[PATH] = [faults.drip] * 3
    refused(given, r"only \d+ bytes came in 0 s \(3 times in a row\)")


def test_nobody_there_is_one_sentence(given: Options) -> None:
    refused(replace(given, base_urls=("http://127.0.0.1:1",)), "the server cannot be reached")


def test_untrusted_certificate_is_named(given: Options, server: Server) -> None:
    """Plain http where TLS is expected fails its handshake."""
    refused(replace(given, base_urls=(server.url.replace("http:", "https:"),)), "certificate is not trusted|be reached")


def test_next_mirror_is_asked(given: Options, server: Server, content: bytes) -> None:
    mirrors = replace(given, base_urls=("http://127.0.0.1:1", server.url + "/none", server.url + "/"))
    assert fetch(MODEL, mirrors).read_bytes() == content


def test_all_mirrors_are_in_the_message(given: Options, server: Server) -> None:
    del server.files[PATH]
    sentence = refused(replace(given, base_urls=(server.url, "http://127.0.0.1:1")), "answers 404")
    assert "cannot be reached" in sentence


def test_a_failure_tells_the_ways_on(given: Options, server: Server) -> None:
    sentence = refused(replace(given, base_urls=("http://127.0.0.1:1",)), "/model_final.pkl: the server cannot be reac")
    place = f"put it at {final(given)} and set"
    for way in ("--base-url", "DETECTRON_GN_BASE_URL=", "give it in place of the id", place):
        assert way in sentence
    with pytest.raises(DownloadFailed, match="ways on: a file in place of the URL$"):
        fetch("http://127.0.0.1:1/model.pkl", given)


def test_a_failure_is_told_in_lines(given: Options) -> None:
    mirrors = replace(given, base_urls=("http://127.0.0.1:1", "http://127.0.0.1:2"))
    offline = replace(given, offline=True)
    for failing, start in ((mirrors, "48616381 model cannot be"), (offline, "48616381 model is not")):
        with pytest.raises(NotObtained) as caught:
            fetch(MODEL, failing)
        lines = caught.value.lines
        assert lines[0].startswith(start) and len(lines[0]) < 59 and "/" not in lines[0]
        assert [line.startswith("  tried ") for line in lines].count(True) == (1 if failing.offline else 2)
        ways = lines[lines.index("  ways on:") + 1 :]
        assert len(ways) == 4 and all(way.startswith("  - ") for way in ways) and str(final(given)) in ways[2]


def test_the_way_on_without_a_network_works_to_the_letter(given: Options, content: bytes) -> None:
    """The file where the cache would keep it, and offline mode."""
    path = final(given)
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert fetch(MODEL, replace(given, base_urls=("http://127.0.0.1:1",), offline=True)) == path


@pytest.mark.parametrize("source", [MODEL, 35861858])  # the md5 of the second one is known: nothing is asked for it
def test_without_a_name_service_it_ends_soon_and_says_so(
    source: int, given: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def nothing_known(host: str, *_: object) -> NoReturn:
        asked.append(host)
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", nothing_known)
    away = replace(given, base_urls=("https://models.example",), patience=replace(given.patience, attempts=9))
    with pytest.raises(DownloadFailed, match=r"its host cannot be found \(is there a network\?\)"):
        fetch(source, away)
    assert asked == ["models.example"] * 2


def test_the_bar_says_what_is_fetched_and_a_log_is_not_filled_with_it(
    given: Options, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = replace(given, progress=True)
    fetch(MODEL, shown)
    assert capsys.readouterr().err == ""
    final(given).unlink()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    fetch(MODEL, shown)
    printed = capsys.readouterr().err
    assert f"{MODEL} model: 100%" in printed and "B/s]" in printed


# Content.


@pytest.mark.parametrize(
    "page", [b"<!DOCTYPE html><html>Log in", b"\n<?xml version='1.0'?><Error>AccessDenied</Error>"]
)
def test_error_page_with_status_200_is_recognised(page: bytes, given: Options, server: Server) -> None:
    server.files[PATH] = page
    refused(given, "sent a web page instead of the file")
    assert len(server.gets(PATH)) == 1


def test_json_page_with_a_right_md5_is_recognised(given: Options, server: Server) -> None:
    server.files[PATH] = b'{"error": "no"}'
    refused(given, "is JSON, not a weights file")


def test_wrong_content_is_set_aside_and_never_used(given: Options, server: Server, content: bytes) -> None:
    server.files[PATH + ".md5sum"] = b"0" * 32
    refused(given, "its md5 is .* what came is kept as model_final.pkl.wrong-")
    refused(given, "its md5 is")
    assert len(list(final(given).parent.glob("*.wrong-*"))) == 2 and not part(given).exists()
    del server.files[PATH + ".md5sum"]
    assert fetch(MODEL, given).read_bytes() == content


@pytest.mark.parametrize("form", ["{}", "{}\n", "{}  model_final.pkl\n", "\\{} *model_final.pkl", "{upper}"])
def test_md5sum_is_read_in_every_form(form: str, given: Options, server: Server, content: bytes) -> None:
    digest = hashlib.md5(content).hexdigest()
    server.files[PATH + ".md5sum"] = form.format(digest, upper=digest.upper()).encode()
    assert fetch(MODEL, given).read_bytes() == content


@pytest.mark.parametrize("answer", [None, b"<html>not here</html>", b"", b"abc"])
def test_md5sum_that_is_none_leaves_the_length(
    answer: bytes | None, given: Options, server: Server, content: bytes
) -> None:
    if answer is None:
        server.faults[PATH + ".md5sum"] = [faults.status(404)]
    else:
        server.files[PATH + ".md5sum"] = answer
    assert fetch(MODEL, given).read_bytes() == content


def test_known_md5_of_the_catalog_is_held_against_the_server(given: Options, server: Server, content: bytes) -> None:
    entry = lookup(35861858)
    server.files["/" + (entry.path or "")] = content
    with pytest.raises(DownloadFailed, match="should be 3ae556bf3de044a56eb3ecb66fea5cda"):
        fetch(35861858, given)


def test_sha256_is_pinned_at_the_first_download(given: Options, server: Server, content: bytes) -> None:
    fetch(MODEL, given)
    record = json.loads(final(given).with_name("model_final.pkl.json").read_text())
    assert record["sha256"] == hashlib.sha256(content).hexdigest() and record["size"] == len(content)
    final(given).unlink()
    server.files[PATH] = content.replace(b"a: 1", b"a: 2")
    refused(given, "its sha256 is not that of the first download")


def test_altered_cached_file_is_set_aside_and_fetched_again(given: Options, server: Server, content: bytes) -> None:
    fetch(MODEL, given)
    altered = bytearray(content)
    altered[-20] ^= 1
    final(given).write_bytes(altered)
    assert fetch(MODEL, given).read_bytes() == content
    assert [path.read_bytes() for path in final(given).parent.glob("*.wrong-*")] == [bytes(altered)]


def test_touched_cached_file_is_still_trusted(given: Options, server: Server) -> None:
    fetch(MODEL, given)
    server.requests.clear()
    os.utime(final(given))
    assert fetch(MODEL, given) == final(given) and server.requests == []


def test_file_put_into_the_cache_by_hand_is_checked_and_adopted(given: Options, server: Server, content: bytes) -> None:
    final(given).parent.mkdir(parents=True)
    final(given).write_bytes(content)
    fetch(MODEL, given)
    assert server.gets(PATH) == [] and final(given).with_name("model_final.pkl.json").exists()


# The disk.


def test_folder_in_place_of_the_file_is_named(given: Options) -> None:
    final(given).mkdir(parents=True)
    with pytest.raises(DownloadFailed, match="is a folder where a file belongs"):
        fetch(MODEL, given)


def test_cache_that_cannot_be_written_is_named(given: Options, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DownloadFailed, match="let DETECTRON_GN_CACHE name another cache"):
        fetch(MODEL, replace(given, cache=tmp_path / "file" / "cache"))


def test_symlinked_cache_works(given: Options, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert fetch(MODEL, replace(given, cache=tmp_path / "link")).read_bytes() == content


def test_path_that_leads_out_of_the_cache_is_refused(given: Options, server: Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadFailed, match="leads out of the cache"):
        fetch(server.url + "/../../evil.pkl", given)


def test_full_disk_is_seen_before_it_is_full(given: Options, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    refused(given, f"{len(content)} bytes are needed but only 1000 are free")


def test_disk_that_fills_up_keeps_the_part(
    given: Options, server: Server, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(transfer.os, "fsync", full)
        refused(given, "No space left on device")
    assert fetch(MODEL, given).read_bytes() == content


def test_lock_that_the_disk_does_not_know_means_a_part_of_ones_own(
    given: Options, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    def unlockable(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    parts: list[str] = []
    fetch_part = transfer.fetch_part

    def recorded(url: str, part: Path, *arguments: Any) -> int | None:
        parts.append(part.name)
        return fetch_part(url, part, *arguments)

    monkeypatch.setattr(transfer, "fetch_part", recorded)
    monkeypatch.setattr("fcntl.flock", unlockable)
    assert fetch(MODEL, given).read_bytes() == content
    assert len(parts) == 1 and re.fullmatch(r"model_final\.pkl\.[0-9a-f]{32}\.part", parts[0])
    assert not list(final(given).parent.glob("*.part*"))


# Offline, options.


def test_offline_uses_the_cache_and_nothing_else(given: Options, server: Server, content: bytes) -> None:
    offline = replace(given, offline=True)
    with pytest.raises(NotCached, match="offline mode is on"):
        fetch(MODEL, offline)
    fetch(MODEL, given)
    server.requests.clear()
    assert fetch(MODEL, offline).read_bytes() == content and server.requests == []


def test_options_come_from_the_caller_then_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in "DETECTRON_GN_CACHE", "DETECTRON_GN_BASE_URL", "DETECTRON_GN_OFFLINE":
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert options().cache == Path("/xdg/detectron-gn") and options().base_urls == (catalog().base_url,)
    monkeypatch.setenv("DETECTRON_GN_CACHE", str(tmp_path))
    monkeypatch.setenv("DETECTRON_GN_BASE_URL", "http://a http://b")
    monkeypatch.setenv("DETECTRON_GN_OFFLINE", "1")
    assert (options().cache, options().base_urls, options().offline) == (tmp_path, ("http://a", "http://b"), True)
    chosen = options("/c", "http://c", False)
    assert (chosen.cache, chosen.base_urls, chosen.offline) == (Path("/c"), ("http://c",), False)


def test_existing_file_is_taken_as_it_is(given: Options, server: Server, tmp_path: Path) -> None:
    (tmp_path / "48616381").write_bytes(b"x")
    assert resolve(tmp_path / "48616381", given) == tmp_path / "48616381" and server.requests == []


def test_missing_file_and_unknown_model_are_told_apart(given: Options) -> None:
    with pytest.raises(UnreadableFile, match="weights/none.pkl: there is no such file"):
        resolve("weights/none.pkl", given)
    with pytest.raises(UnknownModel, match="did you mean 48616381"):
        resolve("48616382", given)


def test_proxy_variables_are_heeded(given: Options, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    elsewhere = replace(given, base_urls=("http://models.example",))
    refused(elsewhere, "the proxy cannot be reached")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    fetch(MODEL, given)


# Other processes.

PROGRAM = """
import sys
from pathlib import Path
from detectron_gn.weights.download.cache import Options, fetch
from detectron_gn.weights.download.resumable_http import Patience
patience = Patience(connect=2, read=2, attempts=3, pause=0.01)
print(fetch(48616381, Options(Path(sys.argv[1]), (sys.argv[2],), patience=patience)))
"""


def start(given: Options) -> "subprocess.Popen[bytes]":
    arguments = [sys.executable, "-c", PROGRAM, str(given.cache), given.base_urls[0]]
    return subprocess.Popen(arguments, stdout=subprocess.DEVNULL)


def test_two_processes_at_once_download_once(given: Options, server: Server, content: bytes) -> None:
    server.pause = 0.1
    running = [start(given), start(given)]
    assert [process.wait(60) for process in running] == [0, 0]
    assert final(given).read_bytes() == content and len(server.gets(PATH)) == 1


@pytest.mark.slow
def test_killed_at_20_random_moments_never_leaves_a_wrong_file_and_resumes(
    given: Options, server: Server, content: bytes
) -> None:
    chance = random.Random(0)
    server.files[PATH] = content * 1  # about 400 kB in 7 pieces, 0.03 s apart
    server.pause = 0.03
    resumed = 0
    for _ in range(20):
        before = len(server.requests)
        process = start(given)
        deadline = time.monotonic() + 30
        while len(server.requests) == before and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.25))
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        assert not final(given).exists() or final(given).read_bytes() == content
        resumed += any("range" in headers for headers in server.gets(PATH)[-1:])
        if final(given).exists():
            for path in final(given).parent.iterdir():
                if path.name.startswith("model_final.pkl") and not path.name.endswith(".json"):
                    path.unlink()
    assert resumed >= 3
    assert fetch(MODEL, given).read_bytes() == content


@pytest.mark.slow
def test_lock_of_a_dead_process_does_not_hold(given: Options, server: Server, content: bytes) -> None:
    server.pause = 5
    process = start(given)
    while not server.gets(PATH) and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.wait(10)
    server.pause = 0
    assert final(given).with_name("model_final.pkl.lock").exists()
    assert fetch(MODEL, given).read_bytes() == content


def test_module_has_no_state_of_its_own() -> None:
    assert not [name for name, value in vars(download).items() if isinstance(value, list | dict) and name[:2] != "__"]
