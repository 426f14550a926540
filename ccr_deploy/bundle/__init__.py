"""The bundle: what is copied from the workstation to a device. Manifest, reader and writer."""
