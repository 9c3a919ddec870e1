"""A tiny Llama as a GGUF file inside a wheel, made in code, and a loopback server that offers it."""

import hashlib
import re
import threading
import zipfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import gguf
import numpy as np

from engine.pull import Source

HIDDEN, INNER, HEADS, KV_HEADS = 64, 96, 4, 2
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
WHEEL = "tiny_gguf-1.0-py3-none-any.whl"


def vocabulary():
    """Tokens and merges of a byte-level BPE."""
    from tokenizers import pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = ["d e", "de f", "Ġ x", "1 2"]  # the last never applies: digits stand alone
    return [*SPECIAL, *letters, *(merge.replace(" ", "") for merge in merges)], merges


def weights(seed=0):
    """Hugging Face names -> float32 values of one tied layer."""
    draw = np.random.default_rng(seed)
    head = HIDDEN // HEADS
    shapes = {
        "model.embed_tokens": (len(vocabulary()[0]), HIDDEN),
        "model.norm": (HIDDEN,),
        "model.layers.0.input_layernorm": (HIDDEN,),
        "model.layers.0.post_attention_layernorm": (HIDDEN,),
        "model.layers.0.self_attn.q_proj": (HIDDEN, HIDDEN),
        "model.layers.0.self_attn.k_proj": (KV_HEADS * head, HIDDEN),
        "model.layers.0.self_attn.v_proj": (KV_HEADS * head, HIDDEN),
        "model.layers.0.self_attn.o_proj": (HIDDEN, HIDDEN),
        "model.layers.0.mlp.gate_proj": (INNER, HIDDEN),
        "model.layers.0.mlp.up_proj": (INNER, HIDDEN),
        "model.layers.0.mlp.down_proj": (HIDDEN, INNER),
    }
    values = {name: draw.normal(0, 0.3, shape) for name, shape in shapes.items()}
    return {f"{name}.weight": value.astype(np.float32) for name, value in values.items()}


GGUF_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "model.layers.0.input_layernorm": "blk.0.attn_norm",
    "model.layers.0.post_attention_layernorm": "blk.0.ffn_norm",
    "model.layers.0.self_attn.q_proj": "blk.0.attn_q",
    "model.layers.0.self_attn.k_proj": "blk.0.attn_k",
    "model.layers.0.self_attn.v_proj": "blk.0.attn_v",
    "model.layers.0.self_attn.o_proj": "blk.0.attn_output",
    "model.layers.0.mlp.gate_proj": "blk.0.ffn_gate",
    "model.layers.0.mlp.up_proj": "blk.0.ffn_up",
    "model.layers.0.mlp.down_proj": "blk.0.ffn_down",
}


def interleaved(values, heads):
    """Rows of q or k as llama.cpp's converter stores them: the halves of each head in turn."""
    order = np.arange(values.shape[0]).reshape(heads, 2, -1).transpose(0, 2, 1).ravel()
    return values[order]


def write_gguf(path: Path, *, quantised=False, architecture="llama", types=None, extra=None):
    """The tiny model as a GGUF file; `extra` adds tensors, `types` replaces the token types."""
    tokens, merges = vocabulary()
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(1)
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(100_000.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_merges(merges)
    writer.add_token_types(types or [3] * len(SPECIAL) + [1] * (len(tokens) - len(SPECIAL)))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    named = {GGUF_NAMES[name.removesuffix(".weight")]: v for name, v in weights().items()}
    named["blk.0.attn_q"] = interleaved(named["blk.0.attn_q"], HEADS)
    named["blk.0.attn_k"] = interleaved(named["blk.0.attn_k"], KV_HEADS)
    for name, value in (named | (extra or {})).items():
        kind = gguf.GGMLQuantizationType.Q4_1 if quantised and value.ndim == 2 else None
        data = gguf.quants.quantize(value, kind) if kind else value
        writer.add_tensor(f"{name}.weight", data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def make(directory: Path) -> tuple[Path, Source]:
    """A wheel that pip accepts, with the model in it, and the source that pins it."""
    model = directory / "tiny.gguf"
    write_gguf(model)
    wheel = directory / WHEEL
    info = "tiny_gguf-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(model, "tiny_gguf/tiny.gguf")
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-gguf\nVersion: 1.0\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    source = Source(
        package="tiny-gguf",
        version="1.0",
        wheel_bytes=wheel.stat().st_size,
        wheel_sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        gguf="tiny_gguf/tiny.gguf",
        gguf_sha256=hashlib.sha256(model.read_bytes()).hexdigest(),
        disk_bytes=1_000_000,
        licence="Apache-2.0",
        training="not trained",
    )
    return wheel, source


@dataclass
class Offer:
    """What the loopback server does; `ranges` collects the Range headers of the engine's requests."""

    content: bytes
    accept_ranges: bool = True
    cut_after: list[int] = field(default_factory=list)
    refuse: bool = False
    ranges: list[str | None] = field(default_factory=list)
    url: str = ""


@contextmanager
def serving(content: bytes):
    """A server with one wheel behind a page of links, as pip's --find-links reads it."""
    offer = Offer(content)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if not self.path.endswith(".whl"):
                page = f'<a href="/{WHEEL}">{WHEEL}</a>'.encode()
                self.reply(200, page, {"Content-Type": "text/html"})
            elif self.headers["User-Agent"].startswith("pip/"):
                self.reply(200, offer.content, {})
            else:
                self.wheel()

        def wheel(self):
            offer.ranges.append(self.headers["Range"])
            if offer.refuse:
                return self.reply(403, b"", {})
            wanted = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
            body = offer.content
            start = int(wanted[1]) if wanted and offer.accept_ranges else 0
            span = {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"} if start else {}
            return self.reply(206 if start else 200, body[start:], span)

        def reply(self, status, body, headers):
            cut = offer.cut_after.pop(0) if offer.cut_after and status != 403 else len(body)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            with suppress(ConnectionError):  # a client may have read enough
                self.wfile.write(body[:cut])

        def log_message(self, *arguments):
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    offer.url = f"http://127.0.0.1:{server.server_address[1]}/{WHEEL}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield offer
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
