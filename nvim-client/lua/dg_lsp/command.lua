--- The command `:DgLsp ACTION [ARGUMENT]`.
local client = require('dg_lsp.client')
local config = require('dg_lsp.config')

local M = {}

local function execute(command, arguments, done)
  client.execute(vim.api.nvim_get_current_buf(), command, arguments, done)
end

local function say_status()
  local buf = vim.api.nvim_get_current_buf()
  local status = client.status(client.of(buf))
  local wanted, why = config.wants(buf)
  local message = status.message ~= '' and ' (' .. status.message .. ')' or ''
  vim.notify(('dg_lsp: %s%s%s'):format(status.state, message, wanted and '' or '; not here: ' .. why))
end

local function model(name)
  assert(name, 'dg_lsp: name a model')
  execute('dgLsp.chooseModel', { name })
end

local actions = {
  status = say_status,
  restart = client.restart,
  restart_engine = function()
    execute('dgLsp.restartEngine', {})
  end,
  model = model,
  snooze = function(minutes)
    execute('dgLsp.snooze', minutes and { tonumber(minutes) } or {})
  end,
  stats = function()
    execute('dgLsp.showStatistics', {}, function(result)
      vim.notify(result.text)
    end)
  end,
}

for _, name in ipairs({ 'accept', 'accept_word', 'accept_line', 'next', 'prev', 'dismiss', 'trigger', 'toggle' }) do
  actions[name] = function(argument)
    require('dg_lsp')[name](argument)
  end
end

local arguments = { toggle = { 'buffer', 'language', 'workspace', 'global' } }

-- What can be typed next in `line`, as far as it begins with `lead`.
local function complete(lead, line)
  local action = line:match('^%s*%S+%s+(%S+)%s')
  local all = action and (arguments[action] or {}) or vim.tbl_keys(actions)
  local fitting = vim.tbl_filter(function(word)
    return vim.startswith(word, lead)
  end, all)
  table.sort(fitting)
  return fitting
end

-- An unknown action is an error that names those there are.
local function run(words)
  local action = actions[words[1] or 'status']
  if not action then
    local known = table.concat(complete('', 'DgLsp '), ', ')
    vim.notify(('dg_lsp: there is no %s; there are %s'):format(words[1], known), vim.log.levels.ERROR)
    return
  end
  action(words[2])
end

--- Makes it known to Neovim.
function M.define()
  vim.api.nvim_create_user_command('DgLsp', function(typed)
    run(typed.fargs)
  end, { nargs = '*', desc = 'dg-lsp: accept, trigger, toggle, status, …', complete = complete })
end

return M
