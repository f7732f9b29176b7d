"""How steep a discriminator is, and what bounds that."""
