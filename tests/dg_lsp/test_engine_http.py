"""Engines given by their address, and what else may answer there."""

import asyncio
import json
import shutil
import ssl
import subprocess
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from dg_lsp.client import EngineUnavailable
from dg_lsp.settings import EngineSettings
from engine.request import PROTOCOL
from tests.dg_lsp.clients import opened, request
from tests.running import published, running

HEALTHY = json.dumps({"protocol": PROTOCOL, "status": "ready"}).encode()


@contextmanager
def answering(health, body=b"", context=None):
    """The address of a program that answers each question after its health with `body`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self.send_response(200)
            self.end_headers()
            with suppress(OSError):
                self.wfile.write(health if self.command == "GET" else body)

        do_POST = do_GET

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as other:
        if context:
            other.socket = context.wrap_socket(other.socket, server_side=True)
        threading.Thread(target=other.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{other.server_port}"
        other.shutdown()


@pytest.fixture
def certificate(tmp_path):
    """A certificate of localhost, signed by itself, with its key."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl, which makes the certificate; plain HTTP is tested all the same")
    file = tmp_path / "certificate.pem"
    named = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost")
    made = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *named)
    written = ("-keyout", tmp_path / "key.pem", "-out", file)
    subprocess.run([*made, *written], check=True, capture_output=True)
    file.write_text(file.read_text() + (tmp_path / "key.pem").read_text())
    return file


class TestUrl:
    async def test_a_unix_socket_is_used_and_nothing_started(self, directory, tmp_path):
        with running(tmp_path / "run") as engine:
            url = "unix:" + published(engine.directory)["socket"]
            async with opened(EngineSettings(url=url)) as client:
                assert (await client.infill(request())).text == "[hi|]"
        assert not directory.exists()

    async def test_tcp_needs_the_token(self, directory, tmp_path):
        with running(tmp_path / "run", "--tcp", "0") as engine:
            info = published(engine.directory)
            async with opened(EngineSettings(url=info["url"], token=info["token"])) as client:
                assert (await client.infill(request())).text == "[hi|]"
            for token in ("", "wrong"):
                async with opened(EngineSettings(url=info["url"], token=token)) as client:
                    with pytest.raises(EngineUnavailable, match=r"set engine\.token to the one"):
                        await client.infill(request())
                    with pytest.raises(EngineUnavailable, match=r"set engine\.token to the one"):
                        await client.stop()

    async def test_a_tcp_engine_of_this_user_is_found_with_its_token(self, directory):
        with running(directory, "--tcp", "0"):
            async with opened() as client:
                assert (await client.infill(request())).text == "[hi|]"

    @pytest.mark.parametrize("url", ["http://127.0.0.1:9", "unix:/nonexistent/engine.sock"])
    async def test_an_url_without_an_engine_is_named(self, directory, url):
        async with opened(EngineSettings(url=url)) as client:
            assert await client.health() is None
            assert not await client.stop()
            with pytest.raises(EngineUnavailable, match=f"no engine answers at {url}; start it"):
                await client.connect()

    @pytest.mark.parametrize("url", ["localhost:80", "ftp://x", "http://a:b"])
    async def test_a_bad_url_is_named(self, directory, url):
        async with opened(EngineSettings(url=url)) as client:
            with pytest.raises(EngineUnavailable, match=r"engine\.url (must be|or engine)"):
                await client.connect()

    @pytest.mark.parametrize(
        "body",
        [
            b"hello",
            b"[]",
            b"{}",
            b"[" * 100_000,
            b'{"protocol": 1, "status": "ready", "engine": [1]}',
            b'{"protocol": 1, "status": "ready", "engine": {"prompt_tokens": "many"}}',
            b'{"protocol": 1, "status": "loading", "progress": "half"}',
        ],
    )
    async def test_another_programs_answer_is_not_taken_for_an_engine(self, directory, body):
        with answering(body) as url:
            async with opened(EngineSettings(url=url)) as client:
                with pytest.raises(EngineUnavailable, match="no engine answers at"):
                    await client.connect()

    @pytest.mark.parametrize("on_draft", [None, lambda _: None])
    @pytest.mark.parametrize(
        "body",
        [
            b"hello",
            b"5",
            b"[[]]",
            b"{}",
            b'{"draft": 3}',
            b'{"result": {"text": 3}}',
            b'{"text": "x", "confidence": "high"}',
            b"[" * 100_000,
            b'{"error": "no"}',
            b"\xff\xfe",
        ],
    )
    async def test_garbage_for_an_answer_is_one_line(self, directory, body, on_draft):
        with answering(HEALTHY, body) as url:
            async with opened(EngineSettings(url=url)) as client:
                with pytest.raises(EngineUnavailable) as raised:
                    await client.infill(request(), on_draft)
        assert "\n" not in str(raised.value)

    async def test_an_answer_without_end_is_given_up(self, directory):
        with answering(HEALTHY, b" " * 11_000_000) as url:
            async with opened(EngineSettings(url=url)) as client:
                with pytest.raises(EngineUnavailable, match="longer than 10000000 bytes"):
                    await client.infill(request())

    async def test_what_speaks_no_http_is_no_engine(self, directory):
        async def babble(reader, writer):
            writer.write(b"220 mail.example ready\r\n" * 10)
            writer.close()

        async with await asyncio.start_server(babble, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with opened(EngineSettings(url=f"http://127.0.0.1:{port}")) as client:
                with pytest.raises(EngineUnavailable, match="no engine answers at"):
                    await client.connect()

    async def test_a_certificate_is_checked(self, directory, certificate, monkeypatch):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        with answering(HEALTHY, context=context) as url:
            settings = EngineSettings(url=url.replace("http://127.0.0.1", "https://localhost"))
            async with opened(settings) as client:
                assert await client.health() is None
            monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
            async with opened(settings) as client:
                assert (await client.health())["status"] == "ready"
