"""A mesh of real hosts in one process, under virtual time and simulated faults; one seed decides everything.

`world.Simulation` runs one seed. What is real: `Host` with all its parts, the router with its routes, and
the store on an in-memory SQLite for each machine. What is simulated: clock, chance, network, processes,
scratch directories, and the loss of power at the seams between them.
"""
