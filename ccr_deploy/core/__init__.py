"""What every part uses: records, files, child processes, the machine, metrics."""
