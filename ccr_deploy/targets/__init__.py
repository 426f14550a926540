"""The machines that engines are built for."""
