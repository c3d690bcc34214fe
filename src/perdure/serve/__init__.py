"""Server of a model: one page and REST, to teach, predict, correct and take back."""
