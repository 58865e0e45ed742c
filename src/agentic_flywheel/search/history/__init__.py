"""Finding in what was asked and answered: by words, by meaning, or both."""
