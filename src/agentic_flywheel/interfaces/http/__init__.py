"""The service over HTTP: `afw serve`. `rooms` says how a part is added."""
