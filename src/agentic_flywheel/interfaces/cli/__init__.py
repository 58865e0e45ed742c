"""The command line, `afw`."""
