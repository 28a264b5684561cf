"""Runs inside an engine process and reports on it: cache, load and finished requests.

Nothing here runs in a router. Three kinds of engine use the package: vLLM (`deployments.engines`),
the simulated engine beside it, and the virtual engine of `gateway simulate`. Each does the same:

- It makes one `EngineTracker` and calls its `record_*` methods for every request (the class says
  which, and when).
- The replica's HTTP server sends the tracker's updates to all routers that subscribe
  (`GET /engine/telemetry`). The virtual engine hands them to its routers directly.
- Routers report the requests they hold back for the engine (`PUT /engine/demand`), and the server
  keeps these reports in a `RouterDemand`.
- Ray Serve polls the replica for its `EngineStats`, which `engine_stats` makes from both. The
  autoscaling policy reads them with `read_stats`, in Serve's controller.
"""
