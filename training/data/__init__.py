"""Where training and test images come from."""
