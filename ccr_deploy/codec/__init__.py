"""The data sent over the network: the code contract and the payload."""
