--- Puts a completion, or a part of it, into the text.
local client = require('dg_lsp.client')
local item_ = require('dg_lsp.item')

local M = {}

local api = vim.api

-- What was typed before, what is accepted now and what is typed next are undone one by one.
local function new_undo_step()
  vim.cmd('let &g:undolevels = &g:undolevels')
end

-- Inserts `piece` at the cursor, and takes out the next `replaced` bytes; the cursor goes behind it.
local function insert(piece, replaced)
  local lines = vim.split(piece, '\n', { plain = true })
  local place = item_.place()
  local row, col = place.row, place.col
  new_undo_step()
  api.nvim_buf_set_text(0, row, col, row, col + replaced, lines)
  local start = #lines == 1 and col or 0
  api.nvim_win_set_cursor(0, { row + #lines, start + #lines[#lines] })
  new_undo_step()
end

--- Inserts what is left of an item, or the first piece of that; all taken, its command is run.
---@param item dg_lsp.Item
---@param rest string
---@param unit 'word'|'line'|'all'
---@return string piece, boolean whole what was inserted, and whether that was all
function M.take(item, rest, unit)
  local piece = item_.piece(rest, unit)
  local whole = piece == rest
  insert(piece, whole and item.covered or 0)
  if whole and item.command then
    client.execute(api.nvim_get_current_buf(), item.command.command, item.command.arguments)
  end
  return piece, whole
end

return M
