"""The command line: what is printed where, exit codes, and one clear sentence for every bad input."""
