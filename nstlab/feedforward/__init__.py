"""Style transfer in one pass: a network that has learnt what the optimizer would do (Johnson et al.
2016)."""
