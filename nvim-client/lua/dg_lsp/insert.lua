--- Puts a completion, or a part of it, into the text.
local M = {}

local api = vim.api

--- What was typed before, what is accepted now and what is typed next are undone one by one.
local function new_undo_step()
  vim.cmd('let &g:undolevels = &g:undolevels')
end

--- Inserts `piece` at the cursor, and takes out the next `replaced` bytes; the cursor goes behind it.
---@param place dg_lsp.Place the cursor's
---@param piece string
---@param replaced integer
function M.insert(place, piece, replaced)
  local lines = vim.split(piece, '\n', { plain = true })
  local row, col = place.row, place.col
  new_undo_step()
  api.nvim_buf_set_text(0, row, col, row, col + replaced, lines)
  local start = #lines == 1 and col or 0
  api.nvim_win_set_cursor(0, { row + #lines, start + #lines[#lines] })
  new_undo_step()
end

return M
