"""Training: recipes, losses, and the loop."""
