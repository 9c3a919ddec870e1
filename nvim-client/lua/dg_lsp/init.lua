--- dg_lsp: ghost text from the dg-lsp language server. All that users and other plugins call is here.
local client = require('dg_lsp.client')
local command = require('dg_lsp.command')
local config = require('dg_lsp.config')
local ghost = require('dg_lsp.ghost')

local M = {}

local backend ---@type table? dg_lsp.own or dg_lsp.core, from setup on

local function started()
  return assert(backend, "dg_lsp: call require('dg_lsp').setup() first")
end

--- Starts the plugin; `options` are laid over the defaults, see |dg_lsp-options|.
---@param options table?
function M.setup(options)
  config.set(options or {})
  local group = vim.api.nvim_create_augroup('dg_lsp', {})
  backend = require('dg_lsp.' .. config.backend())
  backend.start(group)
  ghost.define_highlights()
  vim.api.nvim_create_autocmd('ColorScheme', { group = group, callback = ghost.define_highlights })
  vim.api.nvim_create_autocmd({ 'BufEnter', 'FileType', 'InsertEnter' }, {
    group = group,
    callback = vim.schedule_wrap(function(event) -- what kind of buffer it is may be said right after
      client.attach(event.buf)
    end),
  })
  for action, lhs in pairs(config.options.keys) do
    require('dg_lsp.keys').map(lhs, M[action], action)
  end
  command.define()
  client.attach_all()
end

--- Whether there is ghost text to accept.
---@return boolean
function M.visible()
  return started().visible()
end

--- Inserts the ghost text; false where there is none, so that a key can do something else.
function M.accept()
  return started().accept('all')
end

--- The same with its next word.
function M.accept_word()
  return started().accept('word')
end

--- The same up to the end of its line.
function M.accept_line()
  return started().accept('line')
end

--- Shows the next alternative; false where there is no ghost text.
function M.next()
  return started().select(1)
end

--- Shows the alternative before; likewise.
function M.prev()
  return started().select(-1)
end

--- Takes the ghost text away until something is typed; false where there was none.
function M.dismiss()
  return started().dismiss()
end

--- Asks at once, also where nothing is offered unasked.
function M.trigger()
  started().trigger()
end

--- Turns completions over in this buffer, or for this session in a wider `scope`.
---@param scope 'buffer'|'language'|'workspace'|'global'|nil
function M.toggle(scope)
  local buf = vim.api.nvim_get_current_buf()
  if scope and scope ~= 'buffer' then
    client.execute(buf, 'dgLsp.toggle', { scope, vim.uri_from_bufnr(buf) }, function(on)
      vim.notify(('dg_lsp: completions are %s (%s)'):format(on and 'on' or 'off', scope))
    end)
    return
  end
  vim.b[buf].dg_lsp_enabled = vim.b[buf].dg_lsp_enabled == false
  client.attach(buf)
  started().refresh(buf)
end

--- What is happening in this buffer, for a statusline: empty when all is well and quiet.
---@return string
function M.status()
  local buf = vim.api.nvim_get_current_buf()
  local running = client.of(buf)
  if not running then
    return ''
  elseif not config.wants(buf) then
    return 'dg-lsp: off'
  end
  local status = client.status(running)
  if vim.tbl_contains({ 'running', 'ready', 'thinking' }, status.state) then
    return ''
  elseif status.state == 'loading' then
    return ('dg-lsp: loading %d%%'):format(100 * status.progress)
  end
  local message = status.message ~= '' and status.message or status.state
  return 'dg-lsp: ' .. message
end

return M
