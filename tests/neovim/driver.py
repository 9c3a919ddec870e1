"""A real Neovim under test: headless, driven over RPC, with the plugin and the real language server."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import msgpack
import psutil

from tests.running import until

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "nvim-client"
SCRIPTED_SERVER = [sys.executable, "-m", "tests.dg_lsp.scripted_server"]
REAL_SERVER = [sys.executable, "-m", "dg_lsp.cli", "serve"]

HELLO = "SAY hello world"
"""Typed into the middle of three lines, it has the scripted engine offer `hello world`."""
SHOWN = ("one", HELLO + "hello world", "three")

_SCREEN = """
vim.cmd.redraw()
local rows = {}
for row = 1, vim.o.lines - 2 do
  local cells = {}
  for column = 1, vim.o.columns do
    cells[column] = vim.fn.screenstring(row, column)
  end
  rows[row] = (table.concat(cells):gsub('%s+$', ''))
end
return rows
"""

# Notes what the plugin asks and tells, as it sends it.
_LISTEN = """
Asked, Cancelled, Told, Attached = 0, 0, {}, nil
vim.api.nvim_create_autocmd('LspAttach', { callback = function(event)
  Attached = event.data.client_id
end })
vim.api.nvim_create_autocmd('LspRequest', { callback = function(event)
  local request = event.data.request
  if request.method == 'textDocument/inlineCompletion' then
    Asked = Asked + (request.type == 'pending' and 1 or 0)
    Cancelled = Cancelled + (request.type == 'cancel' and 1 or 0)
  end
end })
vim.api.nvim_create_autocmd('LspNotify', { callback = function(event)
  local name = event.data.method:match('^dg/(.*)')
  if name then
    table.insert(Told, { name, event.data.params.acceptedLength })
  end
end })
"""

# A timer ends after those of the same length that were started before it.
_SETTLE = """
local ms, over = ..., false
vim.defer_fn(vim.schedule_wrap(function() over = true end), ms)
return vim.wait(60000, function()
  for _, client in ipairs(over and vim.lsp.get_clients({ name = 'dg_lsp' }) or {}) do
    for _, request in pairs(client.requests) do
      if request.type == 'pending' then
        return false
      end
    end
  end
  return over
end, 5)
"""


def program():
    """The Neovim to test: DG_LSP_TEST_NVIM, the one beside this Python, or the user's own; or None."""
    beside = Path(sys.executable).with_name("nvim")
    return os.environ.get("DG_LSP_TEST_NVIM") or shutil.which(beside) or shutil.which("nvim")


def knows(name):
    """Whether the Neovim to test has something: a Lua expression."""
    if program() is None:
        return False
    say = f"lua io.write(tostring({name} ~= nil))"
    command = [program(), "-u", "NONE", "-i", "NONE", "--headless", "-c", say, "-c", "q"]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    return "true" in ended.stdout


class NeovimError(Exception):
    """What Neovim says went wrong."""


class Neovim:
    """One Neovim process. Keys are worked off at once, answers come later."""

    def __init__(self, process, directory):
        self.process = process
        self.directory = self.files = directory
        self._answers = msgpack.Unpacker(process.stdout, ext_hook=lambda code, data: data)
        self._asked = 0

    def api(self, name, *arguments):
        """Calls `nvim_NAME`."""
        self._asked += 1
        request = [0, self._asked, f"nvim_{name}", arguments]
        self.process.stdin.write(msgpack.packb(request))
        for kind, *answer in self._answers:
            if kind == 1:
                number, error, result = answer
                assert number == self._asked
                if error:
                    raise NeovimError(error[1])
                return result
        raise EOFError("Neovim has ended")

    def lua(self, code, *arguments):
        return self.api("exec_lua", code, arguments)

    def command(self, text):
        """Runs an Ex command and returns what it says."""
        return self.api("exec2", text, {"output": True})["output"]

    def eval(self, expression):
        return self.api("eval", expression)

    def call(self, function):
        """Calls the plugin's public function."""
        return self.lua(f"return require('dg_lsp').{function}()")

    @property
    def server(self):
        """The number of the client of the current buffer's server, None where none runs."""
        return self.lua("return vim.tbl_get(require('dg_lsp.client').of(0) or {}, 'id')")

    @property
    def events(self):
        """What the scripted engine has noted."""
        file = self.directory / "events"
        return file.read_text().splitlines() if file.exists() else []

    @property
    def statistics(self):
        """The text of the server's file of figures."""
        file = self.directory / "statistics"
        return file.read_text() if file.exists() else ""

    @property
    def asked(self):
        """How many completions the plugin has asked the server for in this test."""
        return self.lua("return Asked")

    @property
    def cancelled(self):
        """How many of these it took back unanswered."""
        return self.lua("return Cancelled")

    @property
    def told(self):
        """What the plugin has told of completions in this test, in order, with lengths where there are."""
        return [" ".join(map(str, told)) for told in self.lua("return Told")]

    @property
    def lines(self):
        return self.api("buf_get_lines", 0, 0, -1, True)

    @property
    def cursor(self):
        return self.api("win_get_cursor", 0)

    def setup(self, **options):
        options = {"cmd": SCRIPTED_SERVER, "debounce_ms": 1, **options}
        self.lua("require('dg_lsp').setup(...)", options)

    def open(self, name, text):
        """Edits a new file; waits for its server. Plain text: scripted answers need not parse."""
        (self.files / name).write_text(text, newline="")
        self.command(f"edit {self.files / name}")
        self.until_attached()

    def until_attached(self):
        until(lambda: self.server)

    def type(self, keys):
        """Types keys as a terminal does, and waits until they are worked off."""
        self.api("input", keys)
        self.eval("1")

    def settle(self, milliseconds=1):
        """Waits until no question is put off for so long, and all that were asked are answered."""
        assert self.lua(_SETTLE, milliseconds), "a question is never answered"

    def screen(self):
        """The rows of the screen, without the two last, up to the last that is not empty."""
        rows = self.lua(_SCREEN)
        while rows and rows[-1] in ("", "~"):
            rows.pop()
        return rows

    def until_screen(self, *rows):
        """Waits until these rows are on the screen, and nothing else."""
        with contextlib.suppress(AssertionError):
            until(lambda: self.screen() == list(rows))
        seen = self.screen()
        assert seen == list(rows), f"the screen shows {seen}"

    def until_visible(self, seconds=30):
        """Waits for ghost text, whatever it says."""
        until(lambda: self.lua("return require('dg_lsp').visible()"), seconds)

    def start_over(self, directory):
        """Forgets all files and events, as if nothing had happened; the server runs on."""
        self.type("<Esc><Esc>")
        self.command("silent! %bwipeout! | set virtualedit= foldmethod=manual")
        for noted in ("events", "statistics"):
            (self.directory / noted).unlink(missing_ok=True)
        self.lua("Asked, Cancelled, Told = 0, 0, {}")
        self.files = directory


@contextlib.contextmanager
def running(directory, init=None, **environment):
    """A Neovim with no configuration but the plugin, or with this init.lua; ends it and its server."""
    home = directory / "home"
    if init is not None:
        (home / "nvim").mkdir(parents=True)
        (home / "nvim" / "init.lua").write_text(init)
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "SCRIPTED_EVENTS": str(directory / "events"),
        "DG_LSP_STATISTICS": str(directory / "statistics"),
        "XDG_STATE_HOME": str(home),
        "XDG_CONFIG_HOME": str(home),
        **environment,
    }
    bare = [] if init else ["-u", "NONE"]
    command = [program(), *bare, "-i", "NONE", "-n", "--embed", "--headless"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, bufsize=0) as process:
        nvim = Neovim(process, directory)
        try:
            until(lambda: nvim.eval("v:vim_did_enter"))
            if init is None:
                nvim.command(f"set runtimepath^={PLUGIN} | filetype on")
            nvim.command("set hidden columns=60 lines=14 shortmess+=I noruler nomore")
            nvim.lua(_LISTEN)
            yield nvim
        finally:
            process.kill()  # the server ends with its input


def crash(nvim):
    """Kills the server of the current buffer, the only one, and waits until the next one has the buffer."""
    crashed = nvim.server
    (child,) = psutil.Process(nvim.process.pid).children()
    os.kill(child.pid, signal.SIGKILL)
    until(lambda: nvim.server not in (None, crashed) and nvim.lua("return Attached") == nvim.server)
