"""The course: what the notebooks call, and the commands `nstlab sweep` and `nstlab notebooks`."""
