"""What hostile clients and failing machines do, as scripts to run by hand: bounded, on loopback alone."""
