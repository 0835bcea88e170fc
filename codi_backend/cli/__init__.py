"""The `codi` command, one module per subcommand."""
