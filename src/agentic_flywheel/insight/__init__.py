"""What history teaches: popular questions, the FAQ, paths, warming, figures of use."""
