"""The subcommands of ``asha``, one module each; see asha.cli for their contract."""
