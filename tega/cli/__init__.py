"""``tega-cli``: tega on the command line."""
