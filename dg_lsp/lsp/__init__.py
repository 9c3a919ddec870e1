"""The only package that knows pygls and lsprotocol: messages to plain data, answers to messages.

Nothing here decides what is offered; that is `dg_lsp.session`'s, and below it nobody knows LSP.
"""

from dg_lsp.lsp import lean as lean  # before anything here imports lsprotocol
