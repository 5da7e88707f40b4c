"""Settings, names of choices, files written completely or not at all, devices, signals."""
