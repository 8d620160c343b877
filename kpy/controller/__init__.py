"""What a controller decides: pure functions from a request and an image to what is to be written."""
