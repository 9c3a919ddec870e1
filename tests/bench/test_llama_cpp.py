import sys
import types

import pytest

from bench import llama_cpp
from bench.holes import Hole
from engine.errors import EngineError


def hole(split):
    return Hole(
        key="k",
        split=split,
        cluster="c",
        path="p.py",
        prefix="a = 1\nb = ",
        middle="2",
        suffix="\nc = 3\n",
    )


def answer(text):
    return {
        "choices": [{"text": text, "finish_reason": "length"}],
        "usage": {"completion_tokens": 7},
        "timings": {"predicted_ms": 40.0},
    }


@pytest.fixture
def scripted(monkeypatch, tmp_path):
    """A stand-in for the package that records what it is asked; the model is a file's name."""
    seen = types.SimpleNamespace(asked=[], params=None, answer=answer(" 2"))

    class CommonParams:
        def __init__(self):
            self.model = types.SimpleNamespace(path="")
            self.cpuparams = types.SimpleNamespace(n_threads=-1, poll=50)
            self.cpuparams_batch = types.SimpleNamespace(n_threads=-1, poll=50)

    class Server:
        def __init__(self, params):
            seen.params = params

        def handle_completions(self, request):
            seen.asked.append(request)
            return seen.answer

    module = types.ModuleType("xllamacpp")
    module.CommonParams, module.Server = CommonParams, Server
    monkeypatch.setitem(sys.modules, "xllamacpp", module)
    file = tmp_path / "small.gguf"
    file.touch()
    systems = llama_cpp.of_gguf(file, threads=1)
    return seen, systems["llama.cpp small"]


def test_one_line_is_asked_for_up_to_its_end_and_without_the_blanks_before_it(scripted):
    seen, fill = scripted
    found = fill(hole("1 line"))
    assert seen.asked == [
        {"prompt": "a = 1\nb =", "n_predict": 64, "temperature": 0, "stop": ["\n"]}
    ]
    assert (found.text, found.tokens, found.decode_ms, found.stop) == ("2", 7, 40.0, "length")
    assert seen.params.cpuparams.n_threads == seen.params.cpuparams_batch.n_threads == 1


def test_more_lines_are_cut_where_they_repeat_the_suffix(scripted):
    seen, fill = scripted
    seen.answer = answer("2\nc = 3\nd = 4\n")
    found = fill(hole("block"))
    assert (found.text, found.stop) == ("2", "suffix")
    assert seen.asked[0]["stop"] == []


def test_an_error_of_the_server_is_an_answer_that_failed(scripted):
    seen, fill = scripted
    seen.answer = {"error": {"message": "the prompt is too long"}}
    found = fill(hole("block"))
    assert found.text == ""
    assert "the prompt is too long" in found.error


def test_a_missing_package_is_said_with_the_cure(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(EngineError, match=r"xllamacpp is not installed.*'\.\[bench\]'"):
        llama_cpp.of_gguf(tmp_path, threads=0)


def test_a_missing_file_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "xllamacpp", types.ModuleType("xllamacpp"))
    with pytest.raises(EngineError, match=r"nowhere\.gguf is no file; give the path"):
        llama_cpp.of_gguf(tmp_path / "nowhere.gguf", threads=0)
