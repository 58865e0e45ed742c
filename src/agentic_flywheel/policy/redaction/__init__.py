"""What of a text is somebody's own and must not be kept: found by its form, and taken out."""
