--- Draws a completion behind the cursor, in extmarks only: the buffer's text is never touched.
local M = {}

local api = vim.api
local namespace = api.nvim_create_namespace('dg_lsp.ghost')

--- Tabs as the spaces they take from display column `from` on: virtual text has no tab stops.
local function expanded(text, from, tabstop)
  local column = from
  return (
    text:gsub('[^\t]*\t?', function(part)
      local plain = part:gsub('\t$', '')
      column = column + vim.fn.strdisplaywidth(plain, column)
      if plain == part then
        return part
      end
      local gap = tabstop - column % tabstop
      column = column + gap
      return plain .. (' '):rep(gap)
    end)
  )
end

--- Draws `rest` at the cursor of the current window; the first line in the line, the others below.
---
--- The bytes that it replaces are drawn once: as they are where `rest` ends with them, else blank.
---@param buf integer
---@param place dg_lsp.Place
---@param rest string
---@param covered integer
---@param hint string|false shown dimly at the end
function M.show(buf, place, rest, covered, hint)
  local row, col = place.row, place.col
  local replaced = place.line:sub(col + 1, col + covered)
  local lines = vim.split(rest, '\n', { plain = true })
  local tail_stands = #lines == 1 and covered > 0 and vim.endswith(rest, replaced)
  if tail_stands then
    lines[1] = rest:sub(1, #rest - covered)
  end
  local tabstop = vim.bo[buf].tabstop
  local column = vim.fn.strdisplaywidth(place.line:sub(1, col))
  local chunks = {}
  for number, line in ipairs(lines) do
    chunks[number] = { { expanded(line, number == 1 and column or 0, tabstop), 'DgLspGhost' } }
  end
  if hint then
    table.insert(chunks[#chunks], { hint, 'DgLspHint' })
  end
  M.clear(buf)
  api.nvim_buf_set_extmark(buf, namespace, row, col, {
    virt_text = chunks[1],
    virt_text_pos = 'inline',
    virt_lines = #chunks > 1 and vim.list_slice(chunks, 2) or nil,
    hl_mode = 'combine',
    right_gravity = true,
  })
  if covered > 0 and not tail_stands then
    local blank = (' '):rep(vim.fn.strdisplaywidth(replaced, column))
    api.nvim_buf_set_extmark(buf, namespace, row, col, {
      virt_text = { { blank, 'Normal' } },
      virt_text_pos = 'overlay',
    })
  end
end

--- Takes everything drawn out of the buffer.
function M.clear(buf)
  if api.nvim_buf_is_valid(buf) then
    api.nvim_buf_clear_namespace(buf, namespace, 0, -1)
  end
end

--- The highlight groups, as far as a colorscheme has none of its own.
function M.define_highlights()
  api.nvim_set_hl(0, 'DgLspGhost', { link = 'Comment', default = true })
  api.nvim_set_hl(0, 'DgLspHint', { link = 'NonText', default = true })
end

return M
