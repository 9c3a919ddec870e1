import dataclasses

import pytest

from dg_lsp.settings import EngineSettings, Settings, parse, resolve


def one_message(data):
    settings, messages = parse(data)
    assert settings == Settings()
    assert len(messages) == 1
    return messages[0]


def test_everything_can_be_set():
    settings, messages = parse(
        {
            "engine": {
                "model": "m",
                "device": "cpu",
                "url": "http://h:1",
                "token": "t",
                "start": False,
                "startTimeoutS": 5,
            },
            "enabled": False,
            "disabledLanguages": ["markdown", "text"],
            "maxTokens": 128.0,
            "deadlineMs": 300,
            "logLevel": "debug",
            "completionMenu": False,
            "statistics": False,
            "trusted": True,
        }
    )
    assert messages == []
    assert settings == Settings(
        engine=EngineSettings(
            model="m", device="cpu", url="http://h:1", token="t", start=False, start_timeout_s=5.0
        ),
        enabled=False,
        disabled_languages=("markdown", "text"),
        max_tokens=128,
        deadline_ms=300.0,
        log_level="debug",
        completion_menu=False,
        statistics=False,
        trusted=True,
    )
    assert isinstance(settings.max_tokens, int)


@pytest.mark.parametrize(
    "data", [None, {}, [], {"engine": None, "maxTokens": None}, {"engine": []}]
)
def test_what_is_absent_or_null_keeps_its_default(data):
    assert parse(data) == (Settings(), [])


def test_what_is_not_named_keeps_the_value_of_the_base():
    base = Settings(max_tokens=9, engine=EngineSettings(model="m"))
    settings, _ = parse({"engine": {"device": "cpu"}}, base)
    assert settings == dataclasses.replace(base, engine=EngineSettings(model="m", device="cpu"))


def test_an_empty_lua_table_is_an_empty_list():
    settings, messages = parse({"disabledLanguages": {}}, Settings(disabled_languages=("c",)))
    assert (settings.disabled_languages, messages) == ((), [])


def test_settings_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().enabled = False


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"maxToken": 3}, "setting maxToken is unknown; did you mean maxTokens?"),
        ({"max_tokens": 3}, "setting max_tokens is unknown; did you mean maxTokens?"),
        ({"engine": {"modell": 1}}, "setting engine.modell is unknown; did you mean engine.model?"),
        ("x", "settings must be an object, got 'x'"),
        ({"engine": 3}, "setting engine must be an object, got '3'"),
        ({"enabled": 1}, "setting enabled must be true or false, got '1'; True stays"),
        (
            {"engine": {"model": 3}},
            f"setting engine.model must be a string, got '3'; '{EngineSettings().model}' stays",
        ),
        (
            {"disabledLanguages": "c"},
            "setting disabledLanguages must be a list of strings, got 'c'; () stays",
        ),
        (
            {"disabledLanguages": [1]},
            "setting disabledLanguages must be a list of strings, got '[1]'; () stays",
        ),
        (
            {"logLevel": "loud"},
            "setting logLevel must be one of 'error', 'warning', 'info', 'debug', got 'loud'; "
            "'warning' stays",
        ),
        ({"deadlineMs": 0}, "setting deadlineMs must be a number above 0, got '0'; None stays"),
        ({"deadlineMs": "1"}, "setting deadlineMs must be a number above 0, got '1'; None stays"),
        (
            {"engine": {"startTimeoutS": float("inf")}},
            "setting engine.startTimeoutS must be a number above 0, got 'inf'; 300.0 stays",
        ),
    ],
)
def test_what_cannot_be_used_is_said_once_with_key_and_value(data, message):
    assert one_message(data) == message


@pytest.mark.parametrize("value", [0, 1025, 1.5, True, "64", [64], float("nan"), 10**400])
def test_max_tokens_out_of_bounds_or_not_whole_keeps_the_default(value):
    assert one_message({"maxTokens": value}) == (
        "setting maxTokens must be a whole number above 0 and at most 1024, "
        f"got {str(value)[:80]!r}; 64 stays"
    )


def test_a_token_is_never_shown():
    settings, messages = parse({"engine": {"token": ["secret"]}})
    assert "secret" not in messages[0] and "engine.token must be a string" in messages[0]
    assert "secret" not in repr(parse({"engine": {"token": "secret"}})[0])
    assert settings == Settings()


def test_a_bad_value_does_not_keep_a_good_one_out():
    settings, messages = parse({"maxTokens": 5, "logLevel": 1, "nonsense": 1})
    assert settings == Settings(max_tokens=5)
    assert len(messages) == 2


# what a workspace may say

EVIL = {
    "engine": {"url": "http://evil", "model": "/w/model"},
    "logLevel": "debug",
    "maxTokens": 5,
    "trusted": True,
}
REFUSED = [
    f"setting {name} is not taken from a workspace that is not trusted"
    for name in ("engine.model", "engine.url", "logLevel")
]


@pytest.mark.parametrize("trust", [{}, {"trusted": False}, {"trusted": None}])
def test_an_untrusted_workspace_cannot_choose_the_engine_nor_trust_itself(trust):
    own = {"engine": {"url": "http://mine"}, **trust}
    settings, messages = resolve({**own, "workspace": EVIL})
    assert settings == Settings(
        engine=EngineSettings(url="http://mine"), max_tokens=5, trusted=trust.get("trusted")
    )
    assert messages == REFUSED


def test_a_trusted_workspace_can():
    settings, messages = resolve({"trusted": True, "workspace": EVIL})
    assert (settings.engine.url, settings.log_level, messages) == ("http://evil", "debug", [])


def test_where_scopes_are_not_told_apart_an_untrusted_workspace_could_have_said_all():
    settings, messages = resolve({**EVIL, "trusted": False})
    assert (settings, messages) == (Settings(max_tokens=5, trusted=False), REFUSED)
    later, messages = resolve({"engine": {"url": "http://evil"}}, settings)
    assert (later, messages) == (settings, REFUSED[1:2])


def test_without_a_word_on_trust_what_is_sent_is_the_users_own():
    settings, messages = resolve({"engine": {"url": "http://mine"}})
    assert (settings.engine.url, messages) == ("http://mine", [])


@pytest.mark.parametrize("workspace", [None, [], "x", 7])
def test_workspace_settings_that_are_none_change_nothing(workspace):
    assert resolve({"workspace": workspace})[0] == Settings()
