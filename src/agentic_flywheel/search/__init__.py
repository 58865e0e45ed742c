"""Finding by meaning and by words: embedders, vectors at hand, recall. Knows neither Redis nor policy."""
