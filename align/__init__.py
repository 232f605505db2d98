"""What stages share. A package for each part of the chain; the modules here serve all of them."""
