"""The same numbers sooner: features and gradients in memory of their own, evaluations that are
replayed."""
