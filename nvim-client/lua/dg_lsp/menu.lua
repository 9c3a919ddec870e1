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

local cmp_heard = false

--- Calls `changed` whenever a menu opens or closes. Neovim's own tells by itself; nvim-cmp, which may
--- be loaded late, is listened to when `on_menu` is called with it loaded.
---@param group integer an augroup
function M.on_change(group, changed)
  local later = vim.schedule_wrap(changed)
  vim.api.nvim_create_autocmd({ 'CompleteChanged', 'CompleteDone' }, { group = group, callback = later })
  vim.api.nvim_create_autocmd('User', {
    group = group,
    pattern = { 'BlinkCmpMenuOpen', 'BlinkCmpMenuClose' },
    callback = later,
  })
  vim.api.nvim_create_autocmd('InsertEnter', {
    group = group,
    callback = function()
      local cmp = package.loaded['cmp']
      if cmp and cmp.event and not cmp_heard then
        cmp_heard = true
        cmp.event:on('menu_opened', later)
        cmp.event:on('menu_closed', later)
      end
    end,
  })
end

return M
