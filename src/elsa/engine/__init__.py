"""Who runs when and where: builds the parties from a config and drives them."""
