"""Lightning modules: what is trained in each step, and with which loss."""
