"""Who gives questions their vectors: a model built here, a service, a Python callable."""
