--- Whether a completion menu is open: Neovim's own, nvim-cmp's or blink.cmp's.
local M = {}

function M.is_open()
  if vim.fn.pumvisible() == 1 then
    return true
  end
  local cmp = package.loaded['cmp']
  local blink = package.loaded['blink.cmp']
  return cmp and cmp.visible and cmp.visible()
    or blink and blink.is_menu_visible and blink.is_menu_visible()
    or false
end

--- Calls `changed` whenever a menu opens or closes.
---@param group integer an augroup
function M.on_change(group, changed)
  local later = vim.schedule_wrap(changed)
  vim.api.nvim_create_autocmd({ 'CompleteChanged', 'CompleteDone' }, { group = group, callback = later })
  vim.api.nvim_create_autocmd('User', {
    group = group,
    pattern = { 'BlinkCmpMenuOpen', 'BlinkCmpMenuClose' },
    callback = later,
  })
  local function hear_cmp()
    local found, cmp = pcall(require, 'cmp')
    if found then
      cmp.event:on('menu_opened', later)
      cmp.event:on('menu_closed', later)
    end
  end
  if vim.g.loaded_cmp then
    hear_cmp()
  else -- it may be loaded late
    vim.api.nvim_create_autocmd('User', { group = group, pattern = 'CmpReady', once = true, callback = hear_cmp })
  end
end

return M
