"""Training and evaluation: command lines, recipes, datasets, masks and the trainer."""
