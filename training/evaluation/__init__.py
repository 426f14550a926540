"""What a checkpoint or compressor is worth: accuracy, restored images, latency."""
