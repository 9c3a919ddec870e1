vim.api.nvim_create_user_command('DgLsp', function(command)
  require('dg_lsp.command').run(command.fargs)
end, {
  nargs = '*',
  desc = 'dg-lsp: accept, trigger, toggle, status, …',
  complete = function(lead, line)
    return require('dg_lsp.command').complete(lead, line)
  end,
})
