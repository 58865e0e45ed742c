"""The fronts: each translates its own wire to `Flywheel` and back, and has no logic of its own."""
