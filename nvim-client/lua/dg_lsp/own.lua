--- WHEN to ask and what to show, where Neovim has no inline completion of its own (or on request).
---
--- There is one cursor, so there is one question and one completion at a time, whatever the buffers.
local client = require('dg_lsp.client')
local config = require('dg_lsp.config')
local ghost = require('dg_lsp.ghost')
local insert = require('dg_lsp.insert')
local item_ = require('dg_lsp.item')
local menu = require('dg_lsp.menu')

local M = {}

local api = vim.api
local timer = assert(vim.uv.new_timer())

---@class dg_lsp.Shown
---@field buf integer
---@field items dg_lsp.Item[]
---@field index integer of the one on the screen
---@field taken integer how many characters of it were accepted so far

local shown = { buf = 0, items = {}, index = 1, taken = 0 } ---@type dg_lsp.Shown
local told ---@type string? which item the server was last told of as shown
local cancel ---@type fun()? ends the running question
local postponed = false -- there was no asking because a menu is open
local seen = '' -- the text's version and the cursor's place that were last acted on

local function inserting()
  return api.nvim_get_mode().mode:sub(1, 1) == 'i'
end

local function moment(buf)
  local place = item_.place()
  return table.concat({ buf, api.nvim_buf_get_changedtick(buf), place.row, place.col }, ':')
end

--- The item on the screen and what is left of it; nil if there is none at the cursor.
local function current()
  local item = shown.items[shown.index]
  if not item or shown.buf ~= api.nvim_get_current_buf() then
    return nil
  end
  local rest = item_.rest(item, item_.place())
  if rest and rest ~= '' then
    return item, rest
  end
end

local function stop_asking()
  postponed = false
  timer:stop()
  if cancel then
    cancel()
    cancel = nil
  end
end

local function forget()
  stop_asking()
  ghost.clear(shown.buf)
  shown.items = {}
end

local function draw(with_count)
  local item, rest = current()
  if not item or menu.is_open() then
    ghost.clear(shown.buf)
    return
  end
  local hint = with_count and #shown.items > 1 and (' (%d/%d)'):format(shown.index, #shown.items)
  ghost.show(shown.buf, item_.place(), rest, item.covered, hint)
  local id = item_.id(item)
  if id and id ~= told then
    told = id
    client.notify(shown.buf, 'dg/didShow', { id = id })
  end
end

local function ask(by_hand)
  local buf = api.nvim_get_current_buf()
  local off = vim.fn.getcurpos()[4] > 0 -- with 'virtualedit', beyond the line's end
  if not inserting() or off or not config.wants(buf) then
    return
  end
  stop_asking()
  if not by_hand and menu.is_open() then
    postponed = true
    return
  end
  local asked, place = moment(buf), item_.place()
  cancel = client.ask(buf, place, by_hand, function(raw)
    cancel = nil
    -- What has become old meanwhile is asked anew by the change that made it old.
    if inserting() and api.nvim_get_current_buf() == buf and moment(buf) == asked then
      M.offer(raw)
    end
  end)
end

local function changed()
  local buf = api.nvim_get_current_buf()
  local now = moment(buf)
  if now == seen or not inserting() then
    return -- both the text's and the cursor's event come with each key
  end
  seen = now
  if current() then
    stop_asking()
    draw() -- typed as suggested: drawn before the screen is, so nothing flickers
    return
  end
  forget()
  if client.of(buf) and config.wants(buf) then
    timer:start(config.options.debounce_ms, 0, vim.schedule_wrap(ask))
  end
end

local function leave()
  forget()
  seen = ''
end

--- Shows what a server offers for the cursor's place, InlineCompletionItems, as far as it fits there.
function M.offer(raw)
  local place, items = item_.place(), {}
  for _, offered in ipairs(raw) do
    local item = item_.new(offered, place)
    if item and (item_.rest(item, place) or '') ~= '' then
      table.insert(items, item)
    end
  end
  shown = { buf = api.nvim_get_current_buf(), items = items, index = 1, taken = 0 }
  draw()
end

--- Listens to what the user does; `group` is an augroup.
function M.start(group)
  local function on(events, callback)
    api.nvim_create_autocmd(events, { group = group, callback = callback })
  end
  on({ 'CursorMovedI', 'TextChangedI', 'TextChangedP' }, changed)
  on('InsertEnter', vim.schedule_wrap(changed)) -- it comes before the mode is one of insertion
  on({ 'InsertLeave', 'BufLeave', 'WinLeave' }, leave)
  menu.on_change(group, function()
    if inserting() then
      draw()
      if postponed then
        ask()
      end
    end
  end)
end

--- Nothing has to be done for a buffer that gets its server; one that is turned off forgets.
function M.refresh()
  leave()
end

function M.visible()
  return current() ~= nil and not menu.is_open()
end

---@param unit 'word'|'line'|'all'
---@return boolean
function M.accept(unit)
  local item, rest = current()
  if not item or menu.is_open() then
    return false
  end
  forget()
  local piece, whole = insert.take(item, rest, unit)
  if whole then
    return true
  end
  local buf, taken = shown.buf, shown.taken + vim.fn.strchars(piece)
  local left = item_.moved(item, item_.place(), rest:sub(#piece + 1))
  shown = { buf = buf, items = { left }, index = 1, taken = taken }
  client.notify(buf, 'dg/didPartiallyAccept', { id = item_.id(item), acceptedLength = taken })
  seen = moment(buf)
  draw()
  return true
end

--- Shows the item so many further on, in a circle; says whether there was ghost text.
function M.select(step)
  if not M.visible() then
    return false
  end
  shown.index = (shown.index - 1 + step) % #shown.items + 1
  draw(true)
  return true
end

--- Takes the ghost text away until something is typed; says whether there was any.
function M.dismiss()
  if not M.visible() then
    return false
  end
  client.notify(shown.buf, 'dg/didReject', { id = item_.id(current()) })
  forget()
  return true
end

--- Asks at once, also where nothing is offered unasked.
function M.trigger()
  forget()
  ask(true)
end

return M
