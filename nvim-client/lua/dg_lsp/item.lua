--- A completion as plain data, and what of it is still to be typed.
---
--- Columns and lengths are in bytes, as the server was asked for UTF-8. Knows nothing of windows.
local M = {}

---@class dg_lsp.Place
---@field row integer counted from 0
---@field line string
---@field col integer where the cursor is in it

---@class dg_lsp.Item
---@field row integer
---@field before string the line's text before what the item replaces
---@field text string replaces what follows `before`, line ends as \n
---@field right string the line's text from the cursor on
---@field covered integer how many bytes of `right` the item replaces
---@field command table? what the server wants run when it was taken

--- The cursor's place in the current window.
---@return dg_lsp.Place
function M.place()
  local row, col = unpack(vim.api.nvim_win_get_cursor(0))
  return { row = row - 1, line = vim.api.nvim_get_current_line(), col = col }
end

--- What the server offers for `place`; nil where it replaces something else than around the cursor.
---@param raw table an InlineCompletionItem
---@param place dg_lsp.Place
---@return dg_lsp.Item?
function M.new(raw, place)
  local cursor = { line = place.row, character = place.col }
  local range = raw.range or { start = cursor, ['end'] = cursor }
  local from, to = range.start, range['end']
  if from.line ~= place.row or to.line ~= place.row then
    return nil
  elseif from.character > place.col or to.character < place.col then
    return nil
  end
  return {
    row = place.row,
    before = place.line:sub(1, from.character),
    text = raw.insertText,
    right = place.line:sub(place.col + 1),
    covered = to.character - place.col,
    command = raw.command,
  }
end

--- What is still to be inserted at `place`: '' if all stands there, nil if something else does.
---@param item dg_lsp.Item
---@param place dg_lsp.Place
---@return string?
function M.rest(item, place)
  local whole = item.before .. item.text
  local left = place.line:sub(1, place.col)
  if place.row ~= item.row or place.line:sub(place.col + 1) ~= item.right then
    return nil
  elseif #left < #item.before or not vim.startswith(whole, left) then
    return nil
  end
  return whole:sub(#left + 1)
end

--- The item at `place`, where a part of it has just been inserted and `rest` is left.
---@param item dg_lsp.Item
---@param place dg_lsp.Place
---@param rest string
---@return dg_lsp.Item
function M.moved(item, place, rest)
  local here = { row = place.row, before = place.line:sub(1, place.col), text = rest }
  return vim.tbl_extend('force', item, here)
end

--- The first piece of a text: a word with the space before it, a line, or all of it.
---@param text string
---@param unit 'word'|'line'|'all'
---@return string
function M.piece(text, unit)
  if unit == 'word' then
    local word = vim.fn.matchstr(text, [[^\_s*\%(\k\+\|\%(\k\@!\S\)\+\)]])
    return word ~= '' and word or text
  end
  return unit == 'line' and text:match('^\n*[^\n]*') or text
end

--- What names the item in messages to the server; nil where it did not say.
---@param item dg_lsp.Item
---@return string?
function M.id(item)
  return item.command and item.command.arguments and item.command.arguments[1]
end

return M
