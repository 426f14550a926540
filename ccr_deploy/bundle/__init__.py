"""What crosses from the workstation to a device: manifest, reader, writer."""
