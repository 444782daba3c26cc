"""A hostile server or neighbour wastes a bounded amount of time and disk, and learns and changes nothing."""

import logging
import os
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from detectron_gn.weights.download import addresses, cache, connection
from detectron_gn.weights.download import resumable_http as transfer
from detectron_gn.weights.download.addresses import Refused, check_address
from detectron_gn.weights.download.cache import Options, fetch, options
from detectron_gn.weights.errors import DownloadFailed, NotCached, WeightsError
from tests.helpers import http_server as faults
from tests.helpers.http_server import Fault, Server
from tests.weights.download.conftest import MODEL, PATH

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 400000\r\n\r\n"


def final(given: Options) -> Path:
    return given.cache / PATH[1:]


def beside(given: Options, suffix: str) -> Path:
    path = final(given)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(path.name + suffix)


def refused(given: Options, words: str, source: int | str = MODEL) -> str:
    with pytest.raises(WeightsError, match=words) as caught:
        fetch(source, given)
    assert "\n" not in str(caught.value) and not final(given).exists()
    return str(caught.value)


# Time.


@pytest.mark.parametrize("suffix", ["", ".md5sum"])
@pytest.mark.parametrize(
    "fault",
    [
        faults.raw(b"HTTP/1.1 200 OK\r\nX: ", b"x"),
        faults.raw(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.002),
        faults.raw(OK + b"\x80", b"x"),
        faults.raw(CHUNKED + b"1;", b"x"),
    ],
    ids=["headers", "100 for ever", "body", "chunk line"],
)
def test_what_drips_byte_by_byte_is_given_up(fault: Fault, suffix: str, given: Options, server: Server) -> None:
    server.faults[PATH + suffix] = [fault] * 3
    start = time.monotonic()
    refused(given, "does not answer in time|bytes came in . s|cannot be reached|connection broke")
    assert time.monotonic() - start < 6


def test_a_body_that_comes_in_time_may_take_many_windows(given: Options, server: Server, content: bytes) -> None:
    def slow(handler: faults.Handler) -> bool:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content))
        for at in range(0, len(content), len(content) // 15):
            handler.wfile.write(content[at : at + len(content) // 15])
            time.sleep(0.1)
        return True

    server.faults[PATH] = [slow]
    assert fetch(MODEL, given).read_bytes() == content and len(server.gets(PATH)) == 1


def test_a_base_url_that_is_none_is_told_at_once(given: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETECTRON_GN_BASE_URL", " ")
    assert options(given.cache).base_urls == options(given.cache, "https://dl.fbaipublicfiles.com/detectron").base_urls
    refused(replace(given, base_urls=("nowhere",)), "only http and https addresses are fetched")


def test_a_file_of_certificates_that_is_not_there_is_told(
    given: Options, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "none.pem"))
    away = "https://127.0.0.1:1/m.pkl"
    refused(given, "the file that REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE names is not there", away)


# Disk.


@pytest.mark.parametrize(
    "head",
    [CHUNKED, b"HTTP/1.1 200 OK\r\n\r\n"],
    ids=["chunked", "until the connection ends"],
)
def test_a_body_without_an_end_is_cut_off(
    head: bytes, given: Options, server: Server
) -> None:
    given = replace(given, max_bytes=10 << 20)
    piece = b"\x80" * 65536
    server.faults[PATH] = [faults.endless(head, b"10000\r\n" + piece + b"\r\n" if head is CHUNKED else piece)]
    refused(given, r"the server sent 10\d+ bytes and goes on; more than 0.00976562 GiB are not fetched")
    assert not beside(given, ".part").exists()


def test_a_length_beyond_every_weights_file_is_refused(given: Options, server: Server) -> None:
    server.faults[PATH] = [faults.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 20000000000\r\n\r\n\x80")]
    refused(given, "the file has 20000000000 bytes; more than 16 GiB are not fetched: .* set DETECTRON_GN_MAX_GIB to")
    assert not list(given.cache.rglob("*.part*"))


def test_the_bound_on_a_download_is_raised_and_lowered(
    given: Options, server: Server, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = len(content) / 2**30
    monkeypatch.setenv("DETECTRON_GN_MAX_GIB", repr(exact - 2**-30))
    lower = options(given.cache, server.url)
    refused(replace(given, max_bytes=lower.max_bytes), f"the file has {len(content)} bytes; more than ")
    monkeypatch.setenv("DETECTRON_GN_MAX_GIB", "32")
    assert options().max_bytes == 32 << 30 and options(max_gib=exact).max_bytes == len(content)
    assert fetch(MODEL, replace(given, max_bytes=len(content))).read_bytes() == content
    for text in ("much", "-1", "0", "nan", "inf"):
        monkeypatch.setenv("DETECTRON_GN_MAX_GIB", text)
        with pytest.raises(WeightsError, match=f"DETECTRON_GN_MAX_GIB is '{text}', which is no number of GiB"):
            options()


def test_free_space_is_looked_at_while_a_body_of_unknown_length_comes(
    given: Options, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = iter([10**12] + [1000] * 9)
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda path: SimpleNamespace(free=next(free)))
    monkeypatch.setattr(transfer, "SPARE_BYTES", 1 << 20)
    next(free)
    server.faults[PATH] = [faults.endless(b"HTTP/1.1 200 OK\r\n\r\n", b"\x80" * 65536)]
    refused(given, "bytes are needed but only 1000 are free")
    assert not beside(given, ".part").exists()


def test_nothing_of_a_redirects_body_is_read(given: Options, server: Server, content: bytes) -> None:
    head = b"HTTP/1.1 302 Found\r\nTransfer-Encoding: chunked\r\nLocation: /other\r\n\r\n"
    server.files["/other"] = content
    server.faults[PATH] = [faults.endless(head, b"10000\r\n" + b"x" * 65536 + b"\r\n")]
    assert fetch(MODEL, given).read_bytes() == content


# Words of a server that make no sense.


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n\x80",
        b"HTTP/1.1 206 Partial\r\nContent-Range: bytes 0-1/" + b"9" * 5000 + b"\r\n\r\n\x80",
        b"HTTP/1.1 416 No\r\nContent-Range: bytes */" + b"9" * 5000 + b"\r\n\r\n",
        b"HTTP/1.1 503 No\r\nRetry-After: " + b"9" * 5000 + b"\r\n\r\n",
        b"HTTP/1.1 503 No\r\nRetry-After: Mon, 99 Jan 99999999999 00:00:00 GMT\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://[::1\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://h\xff\xfe/\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://x:99999999/\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://\xe2\x84\x80/\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: //\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://" + b"x" * 300 + b"/\r\n\r\n",
        b"HTTP/1.1 99999999999999999999 \xff\r\n\r\n",
        b"HTTP/1.1 404 \x1b[31m\xff\x9b\r\n\r\n",
        b"\x00\xff" * 99 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n" + b"x" * 9999,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"f" * 5000 + b"\r\nabc",
        b"HTTP/1.1 200 OK\r\nETag: \xff\xfe\r\nContent-Length: 9\r\n\r\nab",
        b"",
    ],
    ids=lambda answer: ascii(answer[9:60]),
)
@pytest.mark.parametrize("suffix", ["", ".md5sum"])
def test_an_answer_that_makes_no_sense_is_one_sentence_or_gone_over(
    answer: bytes, suffix: str, given: Options, server: Server, content: bytes
) -> None:
    server.faults[PATH + suffix] = [faults.raw(answer)]
    try:
        assert fetch(MODEL, given).read_bytes() == content
    except DownloadFailed as error:
        assert "\n" not in str(error) and len(str(error).partition("; ways on: ")[0]) < 600


# Addresses.


@pytest.mark.parametrize(
    "host",
    ["169.254.169.254", "2852039166", "0xA9FEA9FE", "0251.0376.0251.0376", "169.254.43518", "169.254.169.254."]
    + ["[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]", "[64:ff9b::a9fe:a9fe]", "[fe80::1]", "[fe80::1%25eth0]"]
    + ["\uff11\uff16\uff19.254.169.254", "169\u3002254\u3002169\u3002254"],
)
def test_every_spelling_of_a_link_local_address_is_refused(host: str) -> None:
    with pytest.raises(Refused, match="own infrastructure"):
        check_address(f"http://{host}/latest/meta-data")


@pytest.mark.parametrize("host", ["example.org", "10.0.0.1", "[::1]", "[2001:db8::1]", "localhost", "a.b."])
def test_ordinary_hosts_are_fetched(host: str) -> None:
    check_address(f"https://{host}/model.pkl")


def test_a_name_that_leads_to_a_link_local_address_is_refused_before_anything_is_sent(
    given: Options, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(host: str) -> None:
        assert host == "127.0.0.1"
        raise Refused("an address of the machine's own infrastructure is not fetched")

    monkeypatch.setattr(connection, "check_host", check)
    refused(replace(given, base_urls=(server.url.replace("127.0.0.1", "localhost"),)), "own infrastructure")
    assert server.requests == []


@pytest.mark.parametrize(
    ("location", "sent"),
    [("http://127.0.0.1:{port}/other", True), ("/other", True), ("http://localhost:{port}/other", False)],
)
def test_credentials_stay_on_their_host(
    location: str, sent: bool, given: Options, server: Server, content: bytes
) -> None:
    server.files["/other"] = content
    server.faults[PATH] = [faults.status(302, Location=location.format(port=server.server_address[1]))]
    fetch(MODEL, replace(given, base_urls=(server.url.replace("http://", "http://me:secret@"),)))
    assert ["authorization" in headers for headers in server.gets("/other")] == [sent]


def test_http_is_warned_of_where_no_md5_is_known_beforehand(
    given: Options, server: Server, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch(MODEL, given)
    assert caplog.messages == []  # this very machine
    monkeypatch.setattr(cache, "is_protected", lambda url: False)
    fetch(f"{server.url}{PATH}", replace(given, cache=given.cache / "other"))
    (message,) = caplog.messages
    assert "http does not protect a file" in message and caplog.records[0].levelno == logging.WARNING
    assert not addresses.is_protected("http://example.org/a") and addresses.is_protected("https://example.org/a")


# Secrets.


def test_no_password_and_no_token_is_in_a_name_or_a_file_of_the_cache(
    given: Options, server: Server, content: bytes
) -> None:
    server.files["/m.pth?token=hush"] = content
    url = server.url.replace("http://", "http://me:p@secret@") + "/m.pth?token=hush"
    server.faults["/m.pth?token=hush"] = [faults.cut(1000)] * 3
    with pytest.raises(DownloadFailed) as caught:
        fetch(url, replace(given, patience=replace(given.patience, attempts=1)))
    partial = [path for path in given.cache.rglob("*") if path.is_file()]
    assert any(path.name.endswith(".part.json") for path in partial)
    found = fetch(url, given)
    assert found.suffix == ".pth" and found != fetch(url, given).with_name("m.pth")
    for text in [str(caught.value), *(str(path) for path in [*partial, *given.cache.rglob("*")])]:
        assert "secret" not in text and "hush" not in text
    for path in [path for path in given.cache.rglob("*") if path.is_file()]:
        assert b"secret" not in path.read_bytes() and b"hush" not in path.read_bytes()


# Neighbours.


def test_a_planted_link_never_leads_a_download_to_another_file(
    given: Options, server: Server, content: bytes, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    for suffix in ".part", ".part.json", ".lock", ".json":
        for link in os.symlink, os.link:
            victim.write_bytes(b"precious")
            before = victim.stat().st_mtime_ns
            beside(given, suffix).unlink(missing_ok=True)
            link(victim, beside(given, suffix))
            final(given).unlink(missing_ok=True)
            assert fetch(MODEL, given).read_bytes() == content
            assert victim.read_bytes() == b"precious"
            assert victim.stat().st_mtime_ns == before


@pytest.mark.parametrize("suffix", [".part", ".part.json", ".json"])
def test_a_planted_pipe_is_not_waited_for(suffix: str, given: Options, content: bytes) -> None:
    os.mkfifo(beside(given, suffix))
    assert fetch(MODEL, given).read_bytes() == content


@pytest.mark.parametrize("text", ["[" * 60_000, "[" * 10**6, '{"a":' * 10_000, "[]", "null", '{"url": 1}', "\ud800"])
@pytest.mark.parametrize("suffix", [".json", ".part.json"])
def test_a_record_of_any_content_does_no_harm(suffix: str, text: str, given: Options, content: bytes) -> None:
    beside(given, suffix).write_bytes(text.encode("utf-8", "surrogatepass"))
    if suffix == ".part.json":
        beside(given, ".part").write_bytes(content[:9])
    assert fetch(MODEL, given).read_bytes() == content


def test_a_byte_that_changed_is_seen_though_the_times_are_the_same(given: Options, content: bytes) -> None:
    times = fetch(MODEL, given).stat()
    altered = bytearray(content)
    altered[-20] ^= 1
    final(given).write_bytes(altered)
    os.utime(final(given), ns=(times.st_atime_ns, times.st_mtime_ns))
    assert fetch(MODEL, given).read_bytes() == content


def test_a_file_that_did_not_change_is_not_read_again(
    given: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch(MODEL, given)
    os.utime(final(given))
    fetch(MODEL, given)
    monkeypatch.setattr(cache, "_digests", lambda path: pytest.fail("read again"))
    fetch(MODEL, given)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("planted", ["file", "record", "both"])
def test_what_anybody_can_have_planted_is_not_trusted(
    planted: str, given: Options, server: Server, content: bytes, tmp_path: Path
) -> None:
    evil = content[:-9] + b"\0" + content[-8:]
    server.files[PATH] = evil
    fetch(MODEL, given)
    server.files[PATH] = content
    for name, path in ("file", final(given)), ("record", beside(given, ".json")):
        if planted in (name, "both"):
            os.chown(path, 12345, 12345)
    assert fetch(MODEL, given).read_bytes() == evil  # nobody else could write there
    final(given).parent.chmod(0o777)
    if planted != "record":
        with pytest.raises(NotCached):
            fetch(MODEL, replace(given, offline=True))
    beside(given, ".json").unlink()
    assert fetch(MODEL, given).read_bytes() == content


@pytest.mark.parametrize("name", ["m.pth", "m.safetensors", "m.h5", "m", "m.pkl", "m.bin"])
def test_what_is_no_weights_file_is_not_taken_whatever_its_name(name: str, given: Options, server: Server) -> None:
    server.files[f"/{name}"] = b"\x7fELF" + bytes(500)
    with pytest.raises(DownloadFailed, match="is a program, not a weights file"):
        fetch(f"{server.url}/{name}", given)


def test_no_home_folder_is_told_with_the_variable_that_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "HOME", "XDG_CACHE_HOME", "DETECTRON_GN_CACHE":
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    with pytest.raises(WeightsError, match="no home folder to keep downloads in: set DETECTRON_GN_CACHE"):
        options()
    assert options("folder").cache == Path("folder")
