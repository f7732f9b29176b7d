"""From a generator or files to features: samples, extractors and the cache of real images."""
