--- The language server: started, restarted when it crashes, told and asked. Decides nothing about ghost text.
local config = require('dg_lsp.config')

local M = {}

---@class dg_lsp.Status
---@field state string
---@field message string why nothing is shown, if so
---@field progress number how much of a model is loaded, from 0 to 1

local NAME = 'dg_lsp'
local STOPPED = { state = 'stopped', message = '', progress = 0 }
local RUNNING = { state = 'running', message = '', progress = 0 } -- and has said nothing yet
local CRASHES, WITHIN_MS = 3, 60000 -- more than so many in so short a time, and it stays down
local crashes = {} -- when, in ms
local statuses = {} ---@type table<integer, dg_lsp.Status> by client, as its server last said
local told_missing = false

-- Until 0.10 a client's functions were called with a dot.
local has_methods = vim.fn.has('nvim-0.11') == 1

local function call(client, name, ...)
  if has_methods then
    return client[name](client, ...)
  end
  return client[name](...)
end

--- The running client of a buffer; nil where there is none yet.
function M.of(buf)
  local client = vim.lsp.get_clients({ bufnr = buf, name = NAME })[1]
  if client and client.initialized and not call(client, 'is_stopped') then
    return client
  end
end

--- How a client's server is; that of no client is stopped.
---@param client vim.lsp.Client?
---@return dg_lsp.Status
function M.status(client)
  return client and (statuses[client.id] or RUNNING) or STOPPED
end

local function set_status(id, status)
  statuses[id] = status
  vim.api.nvim_exec_autocmds('User', { pattern = 'DgLspStatus', modeline = false })
end

local function on_exit(code, signal, id)
  vim.schedule(function()
    set_status(id, nil)
    if (code == 0 and signal == 0) or vim.v.exiting ~= vim.NIL then
      return
    end
    local now = vim.uv.now()
    crashes = vim.tbl_filter(function(at)
      return now - at < WITHIN_MS
    end, crashes)
    table.insert(crashes, now)
    if #crashes > CRASHES then
      vim.notify('dg_lsp: the server keeps crashing; :DgLsp restart tries again', vim.log.levels.ERROR)
      return
    end
    M.attach_all()
  end)
end

local function capabilities()
  local offered = vim.lsp.protocol.make_client_capabilities()
  offered.general.positionEncodings = { 'utf-8' } -- columns are then what Neovim counts in
  -- Neovim before 0.12 does not know of it; the plugin does.
  offered.textDocument.inlineCompletion = offered.textDocument.inlineCompletion
    or { dynamicRegistration = false }
  return offered
end

-- By itself Neovim 0.10 would take one that has just died.
local function is_alive(client, wanted)
  return client.name == NAME and client.root_dir == wanted.root_dir and not call(client, 'is_stopped')
end

--- Gives a loaded buffer its server, where completions belong into it.
function M.attach(buf)
  if not vim.api.nvim_buf_is_loaded(buf) or not config.wants(buf) or M.of(buf) then
    return
  end
  local options = config.options
  if vim.fn.executable(options.cmd[1]) == 0 then
    if not told_missing then
      told_missing = true
      vim.notify(('dg_lsp: %s is not installed; see :checkhealth dg_lsp'):format(options.cmd[1]), vim.log.levels.WARN)
    end
    return
  end
  local settings = vim.tbl_isempty(options.settings) and vim.empty_dict() or options.settings
  vim.lsp.start({
    name = NAME,
    cmd = options.cmd,
    root_dir = vim.fs.root(buf, options.root_markers) or vim.uv.cwd(),
    capabilities = capabilities(),
    init_options = settings,
    settings = { ['dg-lsp'] = settings },
    handlers = {
      ['dg/status'] = function(_, status, context)
        set_status(context.client_id, status)
      end,
    },
    on_exit = on_exit,
  }, { bufnr = buf, reuse_client = is_alive })
end

--- Gives all loaded buffers theirs.
function M.attach_all()
  for _, buf in ipairs(vim.api.nvim_list_bufs()) do
    M.attach(buf)
  end
end

--- Starts the server anew, whatever it was doing.
function M.restart()
  crashes = {}
  local clients = vim.lsp.get_clients({ name = NAME })
  for _, client in ipairs(clients) do
    call(client, 'stop', true)
  end
  vim.wait(2000, function()
    return #vim.lsp.get_clients({ name = NAME }) == 0
  end, 10)
  M.attach_all()
end

--- Asks for completions; returns what cancels that. A cancelled question is never answered.
---@param by_hand boolean
---@param done fun(items: table[])
---@return fun()?
function M.ask(buf, place, by_hand, done)
  local client = M.of(buf)
  if not client then
    return nil
  end
  local finished = false
  local sent, id = call(client, 'request', 'textDocument/inlineCompletion', {
    textDocument = { uri = vim.uri_from_bufnr(buf) },
    position = { line = place.row, character = place.col },
    context = { triggerKind = by_hand and 1 or 2 },
  }, function(_, result)
    finished = true
    done(result and (result.items or result) or {})
  end, buf)
  return sent and function()
    if not finished then
      finished = true
      call(client, 'cancel_request', id)
    end
  end or nil
end

--- Tells the server of a buffer something that wants no answer.
function M.notify(buf, method, params)
  local client = M.of(buf)
  if client then
    call(client, 'notify', method, params)
  end
end

--- Has the server run a command; `done` gets its result. Errors are shown to the user.
function M.execute(buf, command, arguments, done)
  local client = M.of(buf)
  if not client then
    vim.notify('dg_lsp: no server runs for this buffer', vim.log.levels.WARN)
    return
  end
  local params = { command = command, arguments = arguments }
  call(client, 'request', 'workspace/executeCommand', params, function(err, result)
    if err then
      vim.notify('dg_lsp: ' .. err.message, vim.log.levels.ERROR)
    elseif done then
      done(result)
    end
  end, buf)
end

return M
