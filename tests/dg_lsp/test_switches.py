import pytest

from dg_lsp.settings import Settings
from dg_lsp.switches import Status, Switches


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def silence(switches, settings=None, language="python", folder="file:///w", automatic=True):
    return switches.silence(settings or Settings(), language, folder, automatic)


OFF = [
    ("global", "", "completions are off"),
    ("workspace", "file:///w", "completions are off in this workspace"),
    ("language", "python", "completions are off in python"),
]


@pytest.mark.parametrize(("scope", "name", "message"), OFF)
def test_a_switch_goes_off_and_on_again_and_says_so(scope, name, message):
    switches = Switches()
    assert silence(switches) is None
    assert switches.toggle(scope, name, Settings()) is False
    assert silence(switches) == Status("disabled", message)
    assert switches.toggle(scope, name, Settings()) is True
    assert silence(switches) is None


def test_switches_concern_only_what_they_name():
    switches = Switches()
    switches.toggle("language", "markdown", Settings())
    switches.toggle("workspace", "file:///other", Settings())
    assert silence(switches) is None
    assert silence(switches, language="markdown") and silence(switches, folder="file:///other")


def test_switches_go_over_the_settings():
    off = Settings(enabled=False, disabled_languages=("python",))
    switches = Switches()
    assert silence(switches, off) == Status("disabled", "completions are off")
    assert switches.toggle("global", "ignored", off) is True
    assert silence(switches, off) == Status("disabled", "completions are off in python")
    assert switches.toggle("language", "python", off) is True
    assert silence(switches, off) is None


def test_turned_back_to_what_the_settings_say_a_switch_follows_them_again():
    switches = Switches()
    assert [switches.toggle("global", "", Settings()) for _ in range(2)] == [False, True]
    off = Settings(enabled=False)
    assert silence(switches, off) == Status("disabled", "completions are off")


def test_a_pause_ends_by_itself_or_when_told(clock):
    switches = Switches(clock)
    switches.snooze(5)
    clock.now += 181
    assert silence(switches) == Status("snoozed", "completions pause for 2 min more")
    clock.now += 120
    assert silence(switches) is None
    switches.snooze(5)
    switches.snooze(0)
    assert silence(switches) is None


@pytest.mark.parametrize(("scope", "name", "message"), OFF)
def test_a_command_goes_over_a_workspace_that_is_off_and_over_nothing_else(scope, name, message):
    switches = Switches()
    switches.snooze(5)
    switches.toggle(scope, name, Settings())
    told = silence(switches, automatic=False)
    assert told is None if scope == "workspace" else told.message == message


def test_what_explains_silence_is_told_from_what_the_engine_does():
    assert Status("snoozed").explains_silence and Status("excluded").explains_silence
    assert not Status("failed").explains_silence and not Status("loading").explains_silence
