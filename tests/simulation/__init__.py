"""The deterministic simulator: the real core under a manual clock, a seeded order of everything, and crashes.

clock.py     an event loop whose time moves only when nothing is left to do now
plan.py      what a seed generates: tenants, runs, agents, limits, faults, points at which something crashes
ledger.py    the effects that happened, outside everything that can crash, and the tools that make them
ports.py     the layers as a runtime sees them: slow, reordering, losing answers
people.py    who approves, rejects, edits, settles doubts, kills and cancels
runtime.py   what activates runs, starts children, and dies
world.py     all of it together, for one seed
checks.py    what must hold in the end
"""
