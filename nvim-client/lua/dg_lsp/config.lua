--- What the user can set. Knows nothing of buffers, servers or drawing.
local M = {}

--- A filetype's entry turns it on or off; `['*']` is for all that have none.
M.defaults = {
  cmd = { 'dg-lsp' }, -- how the language server is started
  backend = 'auto', -- 'core' (Neovim 0.12 and later), 'own', or whichever there is
  debounce_ms = 50, -- how long typing must rest before the server is asked (backend 'own')
  max_bytes = 1000000, -- larger buffers are left alone
  filetypes = { ['*'] = true, gitcommit = false, gitrebase = false, help = false },
  root_markers = { '.git' }, -- a directory that holds one of these is the workspace
  settings = {}, -- the server's own, such as { maxTokens = 32 }
  keys = {}, -- insert-mode keys, such as { accept = '<Tab>' }; what they did before is the fallback
}

M.options = vim.deepcopy(M.defaults)

--- Lays `options` over the defaults; raises an error that names what is wrong.
function M.set(options)
  for name, value in pairs(options) do
    local default = M.defaults[name]
    assert(default ~= nil, ('dg_lsp: there is no option %q; see :help dg_lsp-options'):format(name))
    assert(
      type(value) == type(default),
      ('dg_lsp: option %s must be a %s, got %s'):format(name, type(default), vim.inspect(value))
    )
  end
  local merged = vim.tbl_deep_extend('force', M.defaults, options)
  assert(
    vim.tbl_contains({ 'auto', 'core', 'own' }, merged.backend),
    ('dg_lsp: option backend must be auto, core or own, got %q'):format(merged.backend)
  )
  assert(
    merged.backend ~= 'core' or vim.lsp.inline_completion,
    'dg_lsp: backend core needs Neovim 0.12; this one has no vim.lsp.inline_completion'
  )
  M.options = merged
end

--- 'core' or 'own'.
function M.backend()
  if M.options.backend ~= 'auto' then
    return M.options.backend
  end
  return vim.lsp.inline_completion and 'core' or 'own'
end

--- Whether completions belong into this buffer; if not, why.
---@return boolean, string
function M.wants(buf)
  local bo = vim.bo[buf]
  if bo.buftype ~= '' then
    return false, 'buftype is ' .. bo.buftype
  elseif bo.readonly or not bo.modifiable then
    return false, 'the buffer is read-only'
  elseif vim.b[buf].dg_lsp_enabled == false then
    return false, 'b:dg_lsp_enabled is false'
  end
  local on = M.options.filetypes[bo.filetype]
  if on == nil then
    on = M.options.filetypes['*']
  end
  if on == false then
    return false, 'filetype ' .. bo.filetype .. ' is turned off'
  end
  local bytes = vim.api.nvim_buf_get_offset(buf, vim.api.nvim_buf_line_count(buf))
  if bytes > M.options.max_bytes then
    return false, ('the buffer is larger than %d bytes'):format(M.options.max_bytes)
  end
  return true, ''
end

return M
