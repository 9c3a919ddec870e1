--- `:checkhealth dg_lsp`
local M = {}

local function check_server(options)
  local command = options.cmd[1]
  if vim.fn.executable(command) == 0 then
    vim.health.error(command .. ' is not on the PATH', {
      "install the Python package dg-lsp, or name the program: setup { cmd = { '/path/to/dg-lsp' } }",
    })
    return
  end
  local run = vim.system({ command, '--version' }, { text = true }):wait(10000)
  if run.code == 0 then
    vim.health.ok(vim.trim(run.stdout) .. ' at ' .. vim.fn.exepath(command))
  else
    vim.health.warn(command .. ' --version fails: ' .. vim.trim(run.stderr or ''))
  end
  vim.health.info('models and memory: run `dg-lsp doctor`')
end

local function check_backend(config)
  local backend = config.backend()
  local names = { core = 'vim.lsp.inline_completion', own = 'the plugin itself' }
  vim.health.ok('ghost text is drawn by ' .. names[backend])
  if backend == 'core' and not require('dg_lsp.core').is_known() then
    vim.health.warn('this Neovim has other insides: trigger and dismiss do nothing', {
      "setup { backend = 'own' }",
    })
  end
end

function M.check()
  local config = require('dg_lsp.config')
  vim.health.start('dg_lsp')
  if vim.fn.has('nvim-0.10') == 0 then
    vim.health.error('Neovim 0.10 or later is needed')
    return
  end
  vim.health.ok('Neovim ' .. tostring(vim.version()))
  check_backend(config)
  check_server(config.options)
  local clients = vim.lsp.get_clients({ name = 'dg_lsp' })
  if #clients == 0 then
    vim.health.info('no server runs: open a file that completions belong into')
  end
  for _, client in ipairs(clients) do
    local status = require('dg_lsp.client').status(client)
    vim.health.ok(('the server of %s is %s %s'):format(client.root_dir, status.state, status.message))
  end
  for _, other in ipairs({ 'copilot', 'supermaven-nvim', 'codeium', 'minuet', 'llama' }) do
    if package.loaded[other] then
      vim.health.warn(other .. ' draws ghost text as well; turn one of the two off')
    end
  end
end

return M
