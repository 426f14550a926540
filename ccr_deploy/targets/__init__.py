"""Targets: the machines that engines are built for, one TOML file each."""
