"""Discrete-event simulation of routers in front of engines, behind `gateway simulate`.

`batching` and `block_cache` model one vLLM replica without a clock: the simulated engine process
uses them, too. `virtual_engine` and `simulator` run them with the production scheduler in virtual
time.
"""
