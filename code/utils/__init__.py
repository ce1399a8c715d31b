"""What two or more exercises share. Nothing here imports an exercise."""
