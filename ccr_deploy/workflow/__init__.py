"""The work of each command: functions that combine several stages."""
