"""The course: what the notebooks call, and the commands that run them: `nstlab sweep` an
experiment, `nstlab notebooks` all."""
