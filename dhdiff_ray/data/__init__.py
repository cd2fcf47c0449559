"""Real images: where they are, how they are cut, how made pairs are laid down."""
