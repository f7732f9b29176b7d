"""From a generator, files or folders to features: samples, extractors, and the real side, kept."""
