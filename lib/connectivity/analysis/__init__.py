"""What a finished path looks like: planes and surfaces of the loss, shorter paths."""
