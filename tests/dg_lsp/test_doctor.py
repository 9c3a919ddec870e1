import json
import os
import sys

import pytest

from dg_lsp import cli, doctor
from engine import probe
from tests.dg_lsp.command_line import dg_lsp
from tests.running import published

FACTS = {
    "version": "0.1.0",
    "python": "3.12.1",
    "executable": "/py",
    "platform": "Linux",
    "cpus": 8,
    "free_memory_bytes": 16e9,
    "free_disk_bytes": 9e9,
    "asked_model": "m",
    "missing": [],
    "probe_error": "",
    "model_error": "",
    "runtime_dir": "/run/x",
    "torch": {"version": "2.13.0", "cuda": None, "devices": [], "threads": 8},
    "model": {
        "path": "/m",
        "disk_bytes": 269e6,
        "family": "llama",
        "parameters": 135e6,
        "trained_for_diffusion": False,
        "need_bytes": 0.9e9,
    },
    "plans": None,
    "engine": None,
    "engine_error": "",
    "statistics": {"path": "/state/statistics.jsonl", "lines": 7},
    "editors": {},
}
GPU = {"name": "H200", "free_bytes": 100e9, "total_bytes": 150e9}


class TestDoctor:
    def test_it_says_where_the_statistics_are(self):
        (finding,) = (f for f in doctor.judge(FACTS) if f.subject == "statistics")
        assert finding.level == "note"
        assert finding.text.startswith("7 lines, never sent, in /state/statistics.jsonl")

    def model_directory(self, tmp_path):
        config = {
            "model_type": "llama",
            "vocab_size": 64,
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "tie_word_embeddings": True,
        }
        (tmp_path / "config.json").write_text(json.dumps(config))
        (tmp_path / "model.safetensors").write_bytes(b"weights")
        return tmp_path

    def without_torch(self, monkeypatch):
        found = {name: object() for name in probe._NEEDED if name != "torch"}
        monkeypatch.setattr(probe.importlib.util, "find_spec", found.get)

    def test_it_says_what_would_run_and_that_it_would_work(self, empty_home, tmp_path):
        editors = tmp_path / "bin"
        editors.mkdir()
        (editors / "nvim").write_text("#!/bin/sh\necho NVIM v0.12.4\n")
        (editors / "nvim").chmod(0o755)
        model = self.model_directory(tmp_path)
        ended = dg_lsp(
            empty_home, "doctor", "--model", f"{model}/", PATH=f"{editors}:{os.environ['PATH']}"
        )
        assert ended.returncode == 0, ended.stdout
        for said in (
            "memory for DiffusionGemma 26B-A4B",
            "24 GB: int4, ",
            "not trained for infilling",
            "not running; the first",
            "0.12.4: vim.lsp",
        ):
            assert said in ended.stdout
        assert ended.stdout.endswith("\na completion would work\n")
        assert not published(empty_home / "run")

    def test_json_has_the_facts_and_the_running_engine(self, home, monkeypatch, capsys):
        monkeypatch.setenv("DG_LSP_RUNTIME_DIR", str(home / "run"))
        found = {**dict.fromkeys(("torch", "model", "plans")), "missing": ["torch"]}
        found["model_error"] = "no m"
        monkeypatch.setattr(doctor, "_probe", lambda model: {**found, "probe_error": ""})
        assert cli.run(["doctor", "--json", "--model", "m"]) == 1
        facts = json.loads(capsys.readouterr().out)
        assert facts["works"] is False
        assert (facts["missing"], facts["model_error"]) == (["torch"], "no m")
        assert facts["engine"]["status"] == "ready"
        assert facts["runtime_dir"] == str(home / "run")
        assert facts["free_memory_bytes"] > 0

    @pytest.mark.parametrize(
        ("changed", "level", "text"),
        [
            ({}, "ok", "2.13.0: no CUDA device, so it runs on 8 CPU cores"),
            (
                {"torch": {**FACTS["torch"], "devices": [GPU]}},
                "ok",
                "2.13.0: H200 with 100.0 GB of 150.0 GB free",
            ),
            (
                {"missing": ["torch", "tokenizers"], "torch": None},
                "missing",
                "torch, tokenizers not installed; install the engine extra: "
                "pip install 'dg-lsp[engine]'",
            ),
            ({"probe_error": "cannot be used: boom"}, "missing", "cannot be used: boom"),
            ({}, "ok", "m (llama, 135 M parameters, 269 MB) in /m"),
            (
                {"model": {**FACTS["model"], "trained_for_diffusion": True}},
                "note",
                "trained to infill: fills holes with both sides in view",
            ),
            (
                {"model": None, "model_error": "run `dg-lsp pull m`"},
                "missing",
                "m: run `dg-lsp pull m`",
            ),
            ({"free_memory_bytes": 1e9}, "ok", "about 0.9 GB needed, 1.0 GB free"),
            (
                {"free_memory_bytes": 0.5e9},
                "missing",
                "about 0.9 GB needed, 0.5 GB free: close other programs or set a smaller model",
            ),
            ({"free_memory_bytes": None}, "note", "about 0.9 GB needed; free is unknown"),
            (
                {"torch": {**FACTS["torch"], "devices": [{**GPU, "free_bytes": 1e8}]}},
                "missing",
                "about 0.9 GB needed, 0.1 GB free: close other programs or set a smaller model",
            ),
            (
                {"plans": {"model": "B", "cards": [[12, "does not fit"]], "here": []}},
                "note",
                "12 GB: does not fit",
            ),
            (
                {"plans": {"model": "B", "cards": [], "here": [["H200", "bf16, 9 tokens"]]}},
                "note",
                "H200: bf16, 9 tokens",
            ),
            (
                {"free_disk_bytes": 1e8},
                "note",
                "0.1 GB free: too little to fetch a model; free some space",
            ),
            ({}, "ok", "not running; the first completion starts it (in /run/x)"),
            ({"engine_error": "set engine.token"}, "missing", "set engine.token"),
            ({"engine": {"status": "failed", "message": "no luck"}}, "missing", "no luck"),
            (
                {"engine": {"status": "loading", "message": "the engine is busy"}},
                "note",
                "the engine is busy (in /run/x)",
            ),
            (
                {
                    "engine": {
                        "status": "ready",
                        "model": "m",
                        "pid": 7,
                        "uptime_s": 12.3,
                        "rss_bytes": 9e8,
                    }
                },
                "ok",
                "ready with m, pid 7, 12 s, 0.9 GB (in /run/x)",
            ),
            (
                {"editors": {"nvim": "0.11.4"}},
                "note",
                "0.11.4: inline completion is built in from 0.12 on",
            ),
            ({"editors": {"nvim": None}}, "note", "not found on PATH"),
            (
                {"editors": {"code": "1.139.0"}},
                "ok",
                "1.139.0: needs an extension that runs `dg-lsp serve`",
            ),
        ],
    )
    def test_each_fact_has_its_sentence(self, changed, level, text):
        findings = doctor.judge({**FACTS, **changed})
        assert (level, text) in [(finding.level, finding.text) for finding in findings]
        works = all(finding.level != "missing" for finding in findings)
        assert works == (level != "missing")

    def test_a_probe_that_dies_is_quoted(self, monkeypatch):
        monkeypatch.setattr(sys, "executable", "/nonexistent/python")
        found = doctor._probe("m")
        assert found["probe_error"].startswith("cannot be used: [Errno 2]")
        assert found["probe_error"].endswith("pip install 'dg-lsp[engine]'")

    def test_the_probe_names_what_is_not_installed(self, monkeypatch, capsys, tmp_path):
        self.without_torch(monkeypatch)
        model = self.model_directory(tmp_path)
        assert probe.main(["--model", str(model)]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["missing"] == ["torch"]
        assert found["torch"] is None
        assert found["model"]["parameters"] is None
        assert found["model"]["disk_bytes"] == len(b"weights")

    def test_a_model_without_weights_is_named(self, monkeypatch, capsys, tmp_path):
        self.without_torch(monkeypatch)
        model = self.model_directory(tmp_path)
        (model / "model.safetensors").unlink()
        probe.main(["--model", str(model)])
        found = json.loads(capsys.readouterr().out)
        assert found["model"] is None
        assert found["model_error"] == f"{model} has no *.safetensors weights"
