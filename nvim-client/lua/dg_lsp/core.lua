--- The same as `dg_lsp.own` over Neovim's own inline completion (0.12): that draws and asks, this accepts.
---
--- Neovim keeps an item while one types on, with the range it came with; accepted like that, what
--- was typed since would stand there twice. So the line is remembered when the server is asked, and
--- what is still missing is inserted, or nothing if the line has become another one.
local client = require('dg_lsp.client')
local config = require('dg_lsp.config')
local insert = require('dg_lsp.insert')
local item_ = require('dg_lsp.item')

local M = {}

local METHOD = 'textDocument/inlineCompletion'
local asked = {} ---@type table<integer, dg_lsp.Place> by request, until it is answered
local answered ---@type dg_lsp.Place? where the item on the screen was asked for

--- Neovim's states of all buffers; nil where its insides are others. It has no public way to ask by
--- hand, to hide, or to say what is shown.
local function states()
  local found, capability = pcall(require, 'vim.lsp._capability')
  local ours = found and capability.all and capability.all.inline_completion
  return ours and ours.active or nil
end

--- The current buffer's.
local function completor()
  return (states() or {})[vim.api.nvim_get_current_buf()]
end

--- Whether this Neovim's insides are as expected, so that trigger and dismiss work.
function M.is_known()
  return states() ~= nil
end

local function is_ours(id)
  local owner = vim.lsp.get_client_by_id(id)
  return owner ~= nil and owner.name == 'dg_lsp'
end

--- Listens to questions and answers; `group` is an augroup.
function M.start(group)
  vim.api.nvim_create_autocmd('LspRequest', {
    group = group,
    callback = function(event)
      local id, request = event.data.request_id, event.data.request
      if request.method ~= METHOD or not is_ours(event.data.client_id) then
        return
      elseif request.type == 'pending' then
        asked[id] = item_.place()
      else
        answered = request.type == 'complete' and asked[id] or answered
        asked[id] = nil
      end
    end,
  })
  vim.api.nvim_create_autocmd('LspAttach', {
    group = group,
    callback = function(event)
      if is_ours(event.data.client_id) then
        M.refresh(event.buf)
      end
    end,
  })
  vim.api.nvim_create_autocmd('InsertEnter', { -- what kind of buffer it is may have changed
    group = group,
    callback = function(event)
      if client.of(event.buf) then
        M.refresh(event.buf)
      end
    end,
  })
end

--- Turns it on or off in a buffer, as its options say.
function M.refresh(buf)
  local on = config.wants(buf)
  if vim.lsp.inline_completion.is_enabled({ bufnr = buf }) ~= on then
    vim.lsp.inline_completion.enable(on, { bufnr = buf })
  end
end

-- Neovim's item as the plugin's, and what is missing of it; nothing where the line has become another one.
---@return dg_lsp.Item?, string?
local function current(held)
  if not held or not answered or not is_ours(held.client_id) then
    return nil
  end
  local range
  if held.range then
    local row, col, last_row, last_col = held.range:to_extmark()
    range = {
      start = { line = row, character = col },
      ['end'] = { line = last_row, character = last_col },
    }
  end
  local item = item_.new({ insertText = held.insert_text, range = range, command = held.command }, answered)
  local rest = item and item_.rest(item, item_.place()) or ''
  if rest ~= '' then
    return item, rest
  end
end

function M.visible()
  local state = completor()
  return state ~= nil and current(state.current) ~= nil
end

--- Inserts what is missing of the item that Neovim holds: on the next turn of its loop.
---@param unit 'word'|'line'|'all'
---@return boolean
function M.accept(unit)
  if M.is_known() and not M.visible() then
    return false
  end
  return vim.lsp.inline_completion.get({
    on_accept = function(held)
      local item, rest = current(held)
      if not item then
        return nil
      end
      local _, whole = insert.take(item, rest, unit)
      local state = completor()
      if state and not whole then
        state:request(2)
      end
      return nil -- it is done
    end,
  })
end

--- Shows the item so many further on, in a circle; says whether there was ghost text.
function M.select(step)
  local visible = M.visible()
  vim.lsp.inline_completion.select({ count = step })
  return visible
end

--- Takes the ghost text away until something is typed; says whether there was any.
function M.dismiss()
  local visible = M.visible()
  if visible then
    completor():abort()
  end
  return visible
end

--- Asks at once, also where nothing is offered unasked.
function M.trigger()
  local state = completor()
  if state then
    state:abort()
    state:request(1)
  end
end

return M
