--- Insert-mode keys that act where there is ghost text, and do what they did before where there is none.
local M = {}

local function feed(keys, remap)
  vim.api.nvim_feedkeys(keys, remap and 'im' or 'in', false)
end

--- Does what the mapping did; `previous` is what maparg() says of it, empty for a key of Vim's own.
local function fall_back(lhs, previous)
  local keys = previous.rhs
  if previous.callback then
    keys = previous.callback()
    if previous.expr ~= 1 then
      return
    end
  elseif previous.expr == 1 then
    keys = vim.api.nvim_eval(previous.rhs)
  end
  if vim.tbl_isempty(previous) then
    feed(vim.keycode(lhs), false)
  elseif type(keys) == 'string' and keys ~= '' then
    feed(vim.keycode(keys), previous.noremap == 0)
  end
end

--- Maps `lhs` to an action that returns false where it had nothing to do.
function M.map(lhs, action, name)
  assert(action, ('dg_lsp: keys can do accept, accept_word, …; there is no %q'):format(name))
  local previous = vim.fn.maparg(lhs, 'i', false, true)
  if previous.desc == 'dg_lsp: ' .. name then
    return -- a second setup
  end
  vim.keymap.set('i', lhs, function()
    if action() == false then
      fall_back(lhs, previous)
    end
  end, { desc = 'dg_lsp: ' .. name })
end

return M
