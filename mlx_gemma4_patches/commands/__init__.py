"""The commands, one module each.

A module has ``add(commands)``, which declares its arguments, and ``run(options)``, which returns
the exit code. What a command finds out lives elsewhere (``doctor``, ``bench``, ``audit``); here
stand its arguments and its screen.
"""
