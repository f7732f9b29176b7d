"""The audit of a discriminator: its gradients, and bounds of its Lipschitz constant."""
