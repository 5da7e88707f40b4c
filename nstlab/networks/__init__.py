"""Loss models: VGG and others, their weights and preprocessing."""
