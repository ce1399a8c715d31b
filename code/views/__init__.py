"""What the exercises print and draw: numbers in, nothing out. Nobody needs to read it to learn."""
