"""What crosses the network: the code contract and the payload."""
