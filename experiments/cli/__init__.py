"""The command line of a run, and the exit status of a command."""
