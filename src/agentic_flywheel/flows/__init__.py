"""Who answers: flows of several kinds behind one protocol, their registry, routing and fingerprints."""
